// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "app/host_commands.h"
#include "async/task.h"
#include "base/time.h"
#include "domain/plan.h"
#include "domain/trial.h"
#include "runtimes/runtime.h"

namespace flock::agent {

// Keeps the containers of this device at what is wanted: a round every `interval` and on every new
// wish. Needs no network but for downloads. Downloads and health checks run beside the rounds, so
// that a slow registry or a hanging check never keeps a crashed service down.
class Reconciler {
 public:
  struct Options {
    std::string data_dir;
    Duration interval{5'000};
    std::string boot_id;
    TrialLimits trial;
    bool goes_back = true;  // by itself from a release that cannot be kept
    // What it may do to the machine; how that is done is filled in here.
    HostCommands::Options host;
    std::vector<std::string> reboot_command;  // empty: the init system's, or the kernel's
    // The machine goes down: says so, as far as it can be done quickly.
    std::function<Task<void>(std::string why)> farewell = [](auto) -> Task<void> { co_return; };
    std::function<Task<PullCredentials>()> credentials;
    std::function<void()> on_report;  // report() has changed
    // What each round sees, before it changes anything.
    std::function<void(const std::vector<Observed>& containers)> on_containers = [](const auto&) {};
    // A run of a service that should have gone on ended, while this looked on.
    std::function<void(std::string service, device::v1::Exit exit)> on_exit = [](auto, auto) {};
  };
  Reconciler(Executor executor, std::unique_ptr<Runtime> runtime, Options options);
  ~Reconciler();

  // Reads what was stored. Damaged files are moved aside.
  void load();
  // The newest version known, stored or not.
  std::int64_t version() const;
  // Older or known versions change nothing. A new one is applied once it is on disk: a device that
  // acted on what it cannot remember would fall back at its next start. `on_stored` is called when
  // it is, or when a newer one took its place.
  void want(DesiredState fresh, std::function<void()> on_stored);
  Task<void> run();   // until cancelled
  Task<void> stop();  // ends what runs beside the rounds; after run() has ended
  const ReportedState& report() const;
  // The server's broker has acknowledged a report, or the connection with it broke.
  void note_contact(bool there);
  // As the last round saw them.
  const std::vector<Observed>& containers() const;

  // What is asked for by hand is done between two rounds. Throws kNotFound for a service that has
  // no container here, and what the runtime throws.
  Task<void> restart(std::string service);
  // Removes the service's container, with those of ours that share its volumes or network, and
  // empties the named volumes (`volumes`, or all of the service when that is empty). `emptied` is
  // called when that is done and before anything runs again; then the rounds bring the containers
  // back. kUnprocessable for a volume that the service does not have.
  Task<void> purge(std::string service, std::vector<std::string> volumes,
                   std::function<void()> emptied);
  // Stops every container of ours, then does `then`, which should end the machine. When that fails
  // the rounds go on and start them again.
  Task<void> take_down(std::function<Task<void>()> then);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flock::agent

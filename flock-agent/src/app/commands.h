// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "app/reconciler.h"
#include "async/task.h"
#include "base/time.h"
#include "flock/device/v1/device.pb.h"

namespace flock::agent {

// Does what the backend asks of this device by hand, each command once, and says what became of it.
class Commands {
 public:
  struct Options {
    std::string data_dir, boot_id;
    std::string root;  // "", or the folder with sys/ and dev/
    bool reboot = true;
    std::vector<std::string> reboot_command;  // empty: the init system's, or the kernel's
    std::string agent_version;
    std::function<TimePoint()> server_time;
    // Resumes when the result is safe; throws when it cannot be told now.
    std::function<Task<void>(device::v1::CommandResult)> tell;
    // The machine goes down: says so and lets what waits go out, as far as it can be done quickly.
    std::function<Task<void>(std::string why)> farewell;
  };
  Commands(Executor executor, Reconciler& reconciler, Options options);
  ~Commands();

  // Reads what was begun before.
  void load();
  // `accept` is called when the command is on disk, or known, or refused.
  void take(const std::string& payload, std::function<void()> accept);
  // Goes on with what was begun, then tells results until cancelled.
  Task<void> run();
  // What could not be told is tried again.
  void on_connected();
  Task<void> stop();  // after run() has ended

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flock::agent

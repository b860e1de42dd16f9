// SPDX-License-Identifier: Apache-2.0
// For tests: a reconciler on a real Podman, in this process or in one that can be killed.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "app/reconciler.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "runtimes/podman.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::agent {

// Runs until it is told to stop.
inline constexpr const char* kSteadyApp = R"c(
#include <signal.h>
#include <unistd.h>
static void stop(int n) { (void)n; _exit(0); }
int main(void) {
  signal(SIGTERM, stop);
  for (;;) pause();
}
)c";
inline constexpr Duration kPodmanLimit{120'000};
inline constexpr Duration kInterval{200};

class OnPodman : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0 || !flock::testing::require({"podman", "runc"}))
      GTEST_SKIP() << "needs root and podman";
  }
  void start_podman(const std::string& store = "") {
    podman = std::make_unique<flock::testing::Podman>(store);
    podman->start();
    for (const char* name : {"one", "two"})
      images.push_back(podman->build(name, kSteadyApp, std::string("ENV NAME=") + name));
  }

  static device::v1::Service& add(DesiredState& state, const std::string& name,
                                  const std::string& image) {
    auto* service = state.add_services();
    service->set_name(name);
    service->set_image(image);
    service->set_stop_grace_ms(2000);
    service->mutable_restart()->set_policy(device::v1::Restart::ALWAYS);
    return *service;
  }
  static DesiredState one_service(std::int64_t version, const std::string& image) {
    DesiredState state;
    state.set_version(version);
    add(state, "web", image).set_network_mode("none");
    return state;
  }
  Reconciler::Options options(const std::string& folder) const {
    Reconciler::Options out;
    out.data_dir = folder;
    out.interval = kInterval;
    out.credentials = []() -> Task<PullCredentials> { co_return PullCredentials{}; };
    out.on_report = [] {};
    out.boot_id = boot_id;
    out.trial = limits;
    out.goes_back = goes_back;
    return out;
  }
  std::unique_ptr<Runtime> runtime(Executor executor, const std::string& socket) const {
    return make_podman(std::move(executor), socket, insecure);
  }
  // Runs a reconciler in this process for as long as `body` takes.
  Task<void> with_reconciler(std::function<Task<void>(Reconciler&)> body) {
    co_await with_reconciler(podman->socket(), options(data_dir), std::move(body));
  }
  Task<void> with_reconciler(std::string socket, Reconciler::Options options,
                             std::function<Task<void>(Reconciler&)> body) {
    const Executor executor = co_await asio::this_coro::executor;
    TaskScope scope(executor);
    Reconciler reconciler(executor, runtime(executor, socket), std::move(options));
    reconciler.load();
    scope.spawn("reconciler", reconciler.run());
    co_await body(reconciler);
    scope.cancel();
    co_await scope.join();
    co_await reconciler.stop();
  }
  static Task<void> until(std::string what, std::function<bool()> condition,
                          Duration limit = Duration(30'000)) {
    for (Duration waited{0}; waited < limit; waited += Duration(50)) {
      if (condition()) co_return;
      co_await sleep_for(Duration(50));
    }
    throw Error(Code::kTimeout, "did not happen in time: " + what);
  }
  static std::function<bool()> phase(const Reconciler& reconciler, std::int64_t version,
                                     ReportedState::Phase phase) {
    return [&reconciler, version, phase] {
      return reconciler.report().desired_version() == version &&
             reconciler.report().phase() == phase;
    };
  }
  // The ids of those that run.
  std::string containers() const {
    return podman->run({"ps", "--no-trunc", "--quiet", "--filter", "label=io.flock.managed=true"});
  }

  // Exactly so many of ours are there, and all run that image.
  bool only_runs(const std::string& image, std::size_t count) const {
    bool good = false;
    flock::testing::run_task([&]() -> Task<void> {
      const auto eyes = runtime(co_await asio::this_coro::executor, podman->socket());
      std::vector<Observed> list;
      try {
        list = co_await eyes->list();
      } catch (const Error&) {
        co_return;  // Podman cannot list while a container goes
      }
      good = list.size() == count && std::ranges::all_of(list, [&](const Observed& c) {
               return c.run == Run::kRunning &&
                      c.image_digests.contains(image.substr(image.find('@') + 1));
             });
    });
    return good;
  }

  std::unique_ptr<flock::testing::Podman> podman;
  std::vector<std::string> images, insecure;
  flock::testing::TempDir own_data;
  std::string data_dir = own_data.path(), boot_id = "first";
  TrialLimits limits;
  bool goes_back = true;
};

// A process that is nothing but a reconciler, to be killed.
class Victim {
 public:
  Victim(std::function<std::unique_ptr<Runtime>(Executor)> runtime, Reconciler::Options options,
         const std::string& log) {
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    ::dup2(out, 1);
    ::dup2(out, 2);
    Loop loop;
    Reconciler reconciler(loop.executor(), runtime(loop.executor()), std::move(options));
    reconciler.load();
    loop.run(reconciler.run());
    ::_exit(0);
  }
  ~Victim() {
    kill();
    ::waitpid(pid_, nullptr, 0);
  }
  Victim(const Victim&) = delete;
  Victim& operator=(const Victim&) = delete;
  void kill() const { ::kill(pid_, SIGKILL); }

 private:
  pid_t pid_ = -1;
};

}  // namespace flock::agent

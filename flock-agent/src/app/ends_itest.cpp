// SPDX-License-Identifier: Apache-2.0
// How containers end, and what is done to them by hand, with a real Podman.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "app/command_log.h"
#include "app/commands.h"
#include "app/reconciler.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "host/container_meter.h"
#include "runtimes/podman.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::agent {
namespace {

namespace ft = flock::testing;
using device::v1::Exit;
using ft::run_task;

// Ends with the code in its argument, takes all the memory there is, or waits for SIGTERM.
constexpr const char* kApp = R"c(
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void stop(int n) { (void)n; _exit(0); }
int main(int argc, char** argv) {
  signal(SIGTERM, stop);
  FILE* out = fopen("/data/runs", "a");
  if (out) fputs("x", out), fclose(out);
  sleep(1);
  if (argc > 2 && !strcmp(argv[1], "exit")) return atoi(argv[2]);
  if (argc > 1 && !strcmp(argv[1], "crash")) abort();
  while (argc > 1 && !strcmp(argv[1], "hog")) {
    volatile char* block = malloc(1 << 20);
    for (int i = 0; block && i < 1 << 20; i += 512) block[i] = 1;
  }
  for (;;) pause();
}
)c";
constexpr Duration kLimit{120'000};

class Ends : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (::geteuid() != 0 || !ft::require({"podman", "runc"})) return;
    podman = std::make_unique<ft::Podman>();
    podman->start();
    image = podman->build("ends", kApp);
  }
  static void TearDownTestSuite() { podman.reset(); }
  void SetUp() override {
    if (!podman) GTEST_SKIP() << "needs root and podman";
    state.set_version(1);
  }
  void TearDown() override {
    if (!podman) return;
    podman->run({"rm", "--all", "--force", "--time", "0"});
    podman->run({"volume", "prune", "--force"});
  }

  device::v1::Service& add(const std::string& name, const std::vector<std::string>& command = {}) {
    auto* service = state.add_services();
    service->set_name(name);
    service->set_image(image);
    service->set_network_mode("none");
    service->set_stop_grace_ms(2000);
    service->mutable_restart()->set_policy(device::v1::Restart::ALWAYS);
    service->set_has_command(!command.empty());
    for (const std::string& word : command) service->add_command(word);
    return *service;
  }
  static void mount(device::v1::Service& service, const std::string& volume) {
    auto* data = service.add_mounts();
    data->set_kind(device::v1::Mount::VOLUME);
    data->set_source(volume);
    data->set_target("/data");
  }
  // Runs a reconciler towards `state` for as long as `body` takes.
  void with_reconciler(std::function<Task<void>(Reconciler&)> body) {
    const auto all = [&]() -> Task<void> {
      const Executor executor = co_await asio::this_coro::executor;
      Reconciler::Options options;
      options.data_dir = dir.path();
      options.interval = Duration(200);
      options.credentials = []() -> Task<PullCredentials> { co_return PullCredentials{}; };
      options.on_report = [] {};
      options.on_exit = [this](const std::string& service, const Exit& exit) {
        told.emplace_back(service, exit);
      };
      TaskScope scope(executor);
      Reconciler reconciler(executor, make_podman(executor, podman->socket(), {}), options);
      reconciler.load();
      scope.spawn("reconciler", reconciler.run());
      reconciler.want(state, [] {});
      co_await body(reconciler);
      scope.cancel();
      co_await scope.join();
      co_await reconciler.stop();
    };
    run_task(all, kLimit);
  }
  static Task<void> until(std::string what, std::function<bool()> condition) {
    for (int i = 0; i < 400; ++i) {
      if (condition()) co_return;
      co_await sleep_for(Duration(50));
    }
    throw Error(Code::kTimeout, "did not happen in time: " + what);
  }
  static bool runs(const Reconciler& on, const std::string& service) {
    for (const auto& state : on.report().services())
      if (state.name() == service) return state.state() == ServiceState::RUNNING;
    return false;
  }
  static Exit last_exit(const Reconciler& on) {
    return on.report().services_size() > 0 ? on.report().services(0).last_exit() : Exit();
  }
  // Lets one service run, ends it by `end`, and returns what was told of it.
  Exit told_after(const std::vector<std::string>& command, const std::vector<std::string>& end) {
    told.clear();
    state.clear_services();
    auto& service = add("web", command);
    service.mutable_limits()->set_memory_bytes(24 << 20);
    const auto body = [&](Reconciler& on) -> Task<void> {
      if (!end.empty()) {
        co_await until("it runs", [&] { return runs(on, "web") && !on.containers().empty(); });
        co_await sleep_for(Duration(1100));  // Podman tells starts by the second
        podman->run(end);
      }
      co_await until("its end", [&] { return !told.empty(); });
      co_await until("it in the report", [&] {
        return last_exit(on).SerializeAsString() == told.front().second.SerializeAsString();
      });
      co_await until("it runs again", [&] {
        return runs(on, "web") || on.report().services(0).restart_count() > 0;
      });
    };
    with_reconciler(body);
    podman->run({"rm", "--all", "--force", "--time", "0"});
    std::filesystem::remove(dir.file("desired"));
    std::filesystem::remove(dir.file("current"));
    return told.empty() ? Exit() : told.front().second;
  }
  std::string volume(const std::string& name, const std::string& file) const {
    std::ifstream in(podman->run({"volume", "inspect", "--format", "{{.Mountpoint}}", name}) + "/" +
                     file);
    std::string text;
    std::getline(in, text);
    return text;
  }

  static std::unique_ptr<ft::Podman> podman;
  static std::string image;
  DesiredState state;
  ft::TempDir dir;
  std::vector<std::pair<std::string, Exit>> told;
};
std::unique_ptr<ft::Podman> Ends::podman;
std::string Ends::image;

TEST_F(Ends, AreToldWithCodeSignalAndWhoCausedThem) {
  Exit exit = told_after({"exit", "3"}, {});
  EXPECT_EQ(exit.code(), 3);
  EXPECT_EQ(exit.signal(), 0u);
  EXPECT_EQ(exit.by(), Exit::ITSELF);
  EXPECT_LT(std::abs(exit.at_ms() - to_unix_ms(system_clock().now())), 60'000);

  exit = told_after({"crash"}, {});
  EXPECT_GT(exit.signal(), 0u);  // 6, or 11: the first process of a container can ignore the former
  EXPECT_EQ(exit.by(), Exit::ITSELF) << "a program that gives up";

  exit = told_after({}, {"kill", "flock-web"});
  EXPECT_EQ(exit.code(), 137);
  EXPECT_EQ(exit.signal(), 9u);
  EXPECT_EQ(exit.by(), Exit::OTHERS);
  EXPECT_FALSE(exit.out_of_memory());

  exit = told_after({}, {"stop", "flock-web"});
  EXPECT_EQ(exit.code(), 0);
  EXPECT_EQ(exit.by(), Exit::OTHERS) << "podman stop, which ends it with code 0";

  exit = told_after({}, {"rm", "--force", "--time", "0", "flock-web"});
  EXPECT_EQ(exit.by(), Exit::OTHERS);
  EXPECT_EQ(exit.signal(), 9u) << "read from what Podman wrote down";

  exit = told_after({}, {"restart", "--time", "0", "flock-web"});
  EXPECT_EQ(exit.by(), Exit::OTHERS);
}

TEST_F(Ends, OutOfMemoryIsTheKernelsDoing) {
  const Exit exit = told_after({"hog"}, {});
  EXPECT_TRUE(exit.out_of_memory());
  EXPECT_EQ(exit.signal(), 9u);
  EXPECT_EQ(exit.by(), Exit::KERNEL);
}

TEST_F(Ends, AnUpdatesOwnAreKnownAndNoNews) {
  add("web").set_image(podman->build("older", kApp, "ENV OLDER=1"));
  const auto body = [&](Reconciler& on) -> Task<void> {
    co_await until("v1 runs", [&] { return runs(on, "web") && !on.containers().empty(); });
    state.set_version(2);
    state.mutable_services(0)->set_image(image);
    on.want(state, [] {});
    co_await until("v2 runs", [&] {
      return on.report().desired_version() == 2 && on.report().phase() == ReportedState::CONFIRMED;
    });
    EXPECT_EQ(last_exit(on).by(), Exit::FLOCK);
    EXPECT_EQ(last_exit(on).code(), 0);
  };
  with_reconciler(body);
  EXPECT_TRUE(told.empty());
}

TEST_F(Ends, ACompletedJobIsNoNews) {
  add("job", {"exit", "0"}).mutable_restart()->set_policy(device::v1::Restart::NO);
  const auto body = [&](Reconciler& on) -> Task<void> {
    co_await until("the end", [&] { return last_exit(on).by() == Exit::ITSELF; });
  };
  with_reconciler(body);
  EXPECT_TRUE(told.empty());
}

TEST_F(Ends, ARestartByHandIsDoneOnceAndIsNoFailure) {
  mount(add("web"), "web-data");
  const auto body = [&](Reconciler& on) -> Task<void> {
    co_await until("it runs", [&] { return runs(on, "web") && !on.containers().empty(); });
    co_await sleep_for(Duration(1100));  // Podman tells starts by the second
    const std::string id = on.report().services(0).container_id();
    co_await on.restart("web");
    co_await until("its new run",
                   [&] { return runs(on, "web") && last_exit(on).by() == Exit::FLOCK; });
    EXPECT_EQ(on.report().services(0).container_id(), id);
    EXPECT_EQ(on.report().services(0).restart_count(), 0u);
    EXPECT_EQ(co_await ft::code_of_task(on.restart("db")), Code::kNotFound);
  };
  with_reconciler(body);
  EXPECT_TRUE(told.empty());
  EXPECT_EQ(volume("flock-web-data", "runs"), "xx");
}

TEST_F(Ends, APurgeEmptiesTheServicesVolumesAndNoOther) {
  auto& web = add("web");
  mount(web, "web-data");
  mount(add("sidecar"), "web-data");  // shares it
  mount(add("db"), "db-data");
  const auto body = [&](Reconciler& on) -> Task<void> {
    const auto all = [&] { return runs(on, "web") && runs(on, "sidecar") && runs(on, "db"); };
    co_await until("all run", [&] { return all() && on.containers().size() == 3; });
    const std::string db = on.report().services(2).container_id();
    std::ofstream(
        podman->run({"volume", "inspect", "--format", "{{.Mountpoint}}", "flock-web-data"}) +
        "/old")
        << "old data";
    EXPECT_EQ(volume("flock-web-data", "old"), "old data");
    EXPECT_EQ(co_await ft::code_of_task(on.purge("web", {"db-data"}, [] {})), Code::kUnprocessable);
    EXPECT_EQ(co_await ft::code_of_task(on.purge("none", {}, [] {})), Code::kNotFound);
    bool emptied = false;
    co_await on.purge("web", {}, [&] { emptied = true; });
    EXPECT_TRUE(emptied);
    co_await sleep_for(Duration(500));
    co_await until("all run again", all);
    EXPECT_EQ(volume("flock-web-data", "old"), "");
    EXPECT_EQ(on.report().services(2).container_id(), db) << "was not touched";
  };
  with_reconciler(body);
  EXPECT_TRUE(told.empty());
}

TEST_F(Ends, APurgeLeavesAVolumeThatAForeignContainerUses) {
  mount(add("web"), "web-data");
  const auto body = [&](Reconciler& on) -> Task<void> {
    co_await until("it runs", [&] { return runs(on, "web"); });
    podman->run({"run", "--detach", "--network", "none", "--name", "foreign", "--volume",
                 "flock-web-data:/data", image});
    bool emptied = false;
    EXPECT_EQ(co_await ft::code_of_task(on.purge("web", {}, [&] { emptied = true; })),
              Code::kConflict);
    EXPECT_FALSE(emptied);
    co_await until("it runs again", [&] { return runs(on, "web"); });
    EXPECT_EQ(podman->run({"inspect", "--format", "{{.State.Status}}", "foreign"}), "running");
  };
  with_reconciler(body);
}

// flockd was killed in the middle of a purge, before the volumes were empty or after it.
TEST_F(Ends, AnInterruptedPurgeIsFinished) {
  mount(add("web"), "web-data");
  const auto body = [&](Reconciler& on) -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    for (const bool emptied : {false, true}) {
      co_await until("it runs", [&] { return runs(on, "web") && !on.containers().empty(); });
      const std::string folder =
          podman->run({"volume", "inspect", "--format", "{{.Mountpoint}}", "flock-web-data"});
      std::ofstream(folder + "/old") << "old data";
      CommandLog journal(dir.file("commands.json"));
      CommandEntry entry;
      entry.id = "purge-1";
      entry.command.set_id(entry.id);
      entry.command.mutable_purge()->set_service("web");
      entry.state = device::v1::CommandResult::STARTED;
      entry.emptied = emptied;
      journal.add(entry);
      journal.save();
      Commands::Options options;
      options.data_dir = dir.path();
      options.server_time = [] { return system_clock().now(); };
      std::vector<device::v1::CommandResult> results;
      options.tell = [&](device::v1::CommandResult result) -> Task<void> {
        results.push_back(std::move(result));
        co_return;
      };
      Commands commands(executor, on, options);
      commands.load();
      TaskScope scope(executor);
      scope.spawn("commands", commands.run());
      co_await until("its end", [&] {
        return !results.empty() && results.back().state() != device::v1::CommandResult::STARTED;
      });
      EXPECT_EQ(results.back().state(), device::v1::CommandResult::DONE)
          << results.back().message();
      EXPECT_EQ(volume("flock-web-data", "old"), emptied ? "old data" : "") << "emptied once";
      scope.cancel();
      co_await scope.join();
      co_await commands.stop();
      journal.load();
      EXPECT_EQ(journal.find("purge-1")->state, device::v1::CommandResult::DONE);
    }
  };
  with_reconciler(body);
}

TEST_F(Ends, ARefusedGoingDownBringsTheContainersBack) {
  add("web");
  const auto body = [&](Reconciler& on) -> Task<void> {
    co_await until("it runs", [&] { return runs(on, "web") && !on.containers().empty(); });
    bool down = false;
    const auto then = [&]() -> Task<void> {
      down = podman->run({"ps", "--quiet"}).empty();
      throw Error(Code::kUnavailable, "the kernel refuses");
      co_return;
    };
    EXPECT_EQ(co_await ft::code_of_task(on.take_down(then)), Code::kUnavailable);
    EXPECT_TRUE(down);
    co_await until("it runs again", [&] { return runs(on, "web"); });
    EXPECT_EQ(on.report().services(0).restart_count(), 0u);
  };
  with_reconciler(body);
  EXPECT_TRUE(told.empty());
}

// The kernel's figures of a real container, by whatever cgroups this machine has.
TEST_F(Ends, RunningContainersAreMeasured) {
  add("web").mutable_limits()->set_memory_bytes(24 << 20);
  const auto body = [&](Reconciler& on) -> Task<void> {
    co_await until("it runs", [&] {
      return runs(on, "web") && !on.containers().empty() && on.containers().front().pid > 0;
    });
    ContainerMeter meter("");
    meter.sample(on.containers(), std::chrono::steady_clock::now());
    co_await sleep_for(Duration(100));
    const auto metrics = meter.sample(on.containers(), std::chrono::steady_clock::now());
    EXPECT_EQ(metrics.size(), 1u);
    if (metrics.empty()) co_return;
    EXPECT_EQ(metrics[0].service(), "web");
    EXPECT_TRUE(metrics[0].has_cpu_cores());
    EXPECT_GT(metrics[0].memory_bytes(), 0);
    EXPECT_EQ(metrics[0].memory_limit_bytes(), 24 << 20);
    EXPECT_EQ(metrics[0].pids(), 1u);
  };
  with_reconciler(body);
}

}  // namespace
}  // namespace flock::agent

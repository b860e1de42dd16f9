// SPDX-License-Identifier: Apache-2.0
// The reconciler against a real Podman: killed at every step, with full disks, without a registry,
// with damaged files.
#include "app/reconciler.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "app/device_itest.h"
#include "app/podman_itest.h"
#include "base/error.h"
#include "base/files.h"
#include "base/random.h"
#include "link/desired_store.h"
#include "testing/crash_points.h"

namespace flock::agent {
namespace {

namespace ft = flock::testing;
using ft::run_task;

class ReconcilerOnPodman : public OnPodman {};

// Two services, one needing the other, on a network, with a volume; each round replaces both by the
// other image and dies at the next step. The start after it must end with exactly the wanted.
TEST_F(ReconcilerOnPodman, ComesBackFromAKillAtEveryStep) {
  start_podman();
  ft::CrashPoints steps(own_data.file("podman.sock"), podman->socket());
  const auto through_steps = [&](Executor executor) {
    return runtime(std::move(executor), own_data.file("podman.sock"));
  };
  const std::string foreign =
      podman->run({"run", "--detach", "--network", "none", "--name", "foreign", images[0]});
  podman->run({"create", "--network", "none", images[1]});  // so that no image is cleaned away
  const auto state_of = [&](std::int64_t version) {
    DesiredState state;
    state.set_version(version);
    state.add_volumes()->set_name("data");
    const std::string& image = images[static_cast<std::size_t>(version) % 2];
    auto& web = add(state, "web", image);
    web.add_depends_on()->set_service("db");
    auto* mount = add(state, "db", image).add_mounts();
    mount->set_kind(device::v1::Mount::VOLUME);
    mount->set_source("data");
    mount->set_target("/data");
    return state;
  };
  const auto converged = [&](const DesiredState& state) {
    return only_runs(state.services(0).image(), 2) &&
           DesiredStore(data_dir + "/current").load().version() == state.version();
  };

  std::vector<std::string> died_at;
  for (std::int64_t version = 1; version < 100; ++version) {
    const DesiredState state = state_of(version);
    DesiredStore(data_dir + "/desired").save(state);
    bool died = false;
    {
      const Victim first(through_steps, options(data_dir), own_data.file("log"));
      // The first round of all only installs.
      steps.arm(version == 1 ? -1 : static_cast<int>(version) - 2, [&] { first.kill(); });
      ft::wait_until("a crash or the end of the steps",
                     [&] { return steps.crashed() || converged(state); });
      died = steps.crashed();
    }
    if (version > 1 && !died) break;
    if (died) died_at.push_back(steps.step());
    steps.arm(-1, [] {});
    const Victim second(through_steps, options(data_dir), own_data.file("log"));
    ft::wait_until("convergence after a kill at " + (died_at.empty() ? "none" : died_at.back()),
                   [&] { return converged(state); });
  }
  EXPECT_GE(died_at.size(), 14u);  // stop, remove, create, start, of two services, and more
  EXPECT_EQ(podman->run({"inspect", "--format", "{{.State.Status}}", foreign}), "running");
  EXPECT_EQ(podman->run({"volume", "ls", "--quiet"}), "flock-data");
  // A kill without anything to do changes nothing.
  const std::string before = containers();
  const auto latest = DesiredStore(data_dir + "/current").load();
  {
    const Victim third(through_steps, options(data_dir), own_data.file("log"));
  }
  EXPECT_EQ(containers(), before);
  EXPECT_TRUE(converged(latest));
}

TEST_F(ReconcilerOnPodman, KeepsTheOldReleaseWhileTheRegistryIsAway) {
  if (!ft::require({"docker-registry"})) GTEST_SKIP() << "needs docker-registry";
  start_podman();
  ft::Registry registry;
  insecure = {registry.host()};
  registry.start();
  podman->run({"push", "--quiet", "--tls-verify=false", "--digestfile", own_data.file("digest"),
               images[1].substr(0, images[1].find('@')), registry.host() + "/acme/web:2"});
  podman->run({"rmi", "--force", images[1].substr(0, images[1].find('@'))});
  const std::string remote = registry.host() + "/acme/web@" + *read_file(own_data.file("digest"));
  registry.stop();
  const auto first = [&](Reconciler& on) -> Task<void> {
    on.want(one_service(1, images[0]), [] {});
    co_await until("v1 runs", phase(on, 1, ReportedState::CONFIRMED));
    on.want(one_service(2, remote), [] {});
    co_await until("a failed download", [&] {
      return on.report().services_size() == 1 && !on.report().services(0).message().empty();
    });
    EXPECT_EQ(on.report().phase(), ReportedState::DOWNLOADING);
    EXPECT_EQ(on.report().services(0).state(), ServiceState::RUNNING);
  };
  run_task([&]() -> Task<void> { co_await with_reconciler(first); }, kPodmanLimit);

  // The device starts again: its containers have ended, and there is still no registry.
  podman->run({"kill", "--all"});
  const auto second = [&](Reconciler& on) -> Task<void> {
    co_await until("the old release runs again", [&] {
      return on.report().services_size() == 1 &&
             on.report().services(0).state() == ServiceState::RUNNING;
    });
    EXPECT_EQ(on.report().desired_version(), 2);
    EXPECT_NE(on.report().phase(), ReportedState::CONFIRMED);
    registry.start();
    co_await until("v2 runs", phase(on, 2, ReportedState::CONFIRMED));
    EXPECT_EQ(on.report().services(0).image_digest(), remote.substr(remote.find('@') + 1));
  };
  run_task([&]() -> Task<void> { co_await with_reconciler(second); }, kPodmanLimit);
}

TEST_F(ReconcilerOnPodman, AppliesWhatItCouldNotStoreOnceThereIsSpace) {
  start_podman();
  const SmallDisk disk("64k");
  data_dir = disk.path();
  const auto body = [&](Reconciler& on) -> Task<void> {
    on.want(one_service(1, images[0]), [] {});
    co_await until("v1 runs", phase(on, 1, ReportedState::CONFIRMED));
    const std::string before = containers();
    disk.fill(0);
    bool stored = false;
    on.want(one_service(2, images[1]), [&] { stored = true; });
    co_await until("a report of the full disk", phase(on, 2, ReportedState::FAILED));
    EXPECT_EQ(on.report().error_code(), "no_space");
    EXPECT_FALSE(stored);
    EXPECT_EQ(containers(), before);
    EXPECT_EQ(DesiredStore(data_dir + "/desired").load().version(), 1);
    disk.free();
    co_await until("v2 runs", phase(on, 2, ReportedState::CONFIRMED));
    EXPECT_TRUE(stored);
    EXPECT_EQ(DesiredStore(data_dir + "/desired").load().version(), 2);
  };
  run_task([&]() -> Task<void> { co_await with_reconciler(body); }, kPodmanLimit);
}

TEST_F(ReconcilerOnPodman, ReportsAFullImageStoreKeepsWhatRunsAndRecovers) {
  if (!ft::require({"docker-registry"})) GTEST_SKIP() << "needs docker-registry";
  const SmallDisk disk("24m");
  ft::Registry registry;
  registry.start();
  insecure = {registry.host()};
  std::string remote;
  {  // made elsewhere, for it does not fit beside the rest
    ft::Podman builder;
    const std::string ballast = own_data.write("ballast", random_bytes(8 << 20));
    builder.build("big:1", std::string("__asm__(\".section .rodata\\n.incbin \\\"") + ballast +
                               "\\\"\\n.text\");" + kSteadyApp);
    builder.run({"push", "--quiet", "--tls-verify=false", "--digestfile", own_data.file("digest"),
                 "localhost/big:1", registry.host() + "/acme/big:1"});
    remote = registry.host() + "/acme/big@" + *read_file(own_data.file("digest"));
  }
  start_podman(disk.path() + "/store");
  const auto body = [&](Reconciler& on) -> Task<void> {
    on.want(one_service(1, images[0]), [] {});
    co_await until("v1 runs", phase(on, 1, ReportedState::CONFIRMED));
    const std::string before = containers();
    disk.fill(4 << 20);
    on.want(one_service(2, remote), [] {});
    co_await until("a report of the full disk", phase(on, 2, ReportedState::FAILED));
    EXPECT_EQ(on.report().error_code(), "no_space") << on.report().error();
    EXPECT_EQ(containers(), before);
    disk.free();
    co_await until("v2 runs", phase(on, 2, ReportedState::CONFIRMED));
  };
  run_task([&]() -> Task<void> { co_await with_reconciler(body); }, kPodmanLimit);
  podman.reset();  // before its disk goes
}

TEST_F(ReconcilerOnPodman, ADamagedStateFileTouchesNothingUntilTheBrokerHasSpoken) {
  start_podman();
  const auto first = [&](Reconciler& on) -> Task<void> {
    on.want(one_service(3, images[0]), [] {});
    co_await until("v3 runs", phase(on, 3, ReportedState::CONFIRMED));
  };
  run_task([&]() -> Task<void> { co_await with_reconciler(first); }, kPodmanLimit);
  const std::string before = containers();
  for (const char* damaged : {"/desired", "/current"}) {
    const std::string file = data_dir + damaged;
    std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
    if (std::string(damaged) == "/current") {
      std::filesystem::resize_file(data_dir + "/desired", 10);
    }
    const auto again = [&](Reconciler& on) -> Task<void> {
      // With one file damaged the other is still known; with both, nothing is.
      EXPECT_EQ(on.version(), std::string(damaged) == "/current" ? 0 : 3);
      co_await sleep_for(3 * kInterval);
      EXPECT_EQ(containers(), before);
      on.want(one_service(3, images[0]), [] {});
      co_await until("v3 is confirmed", phase(on, 3, ReportedState::CONFIRMED));
      EXPECT_EQ(containers(), before);
      on.want(one_service(2, images[1]), [] {});  // an older one never comes back by itself
      EXPECT_EQ(on.version(), 3);
      DesiredStore(data_dir + "/desired").save(one_service(3, images[0]));
    };
    run_task([&]() -> Task<void> { co_await with_reconciler(again); }, kPodmanLimit);
    EXPECT_TRUE(std::filesystem::exists(data_dir + "/desired.corrupt"));
  }
}

TEST_F(ReconcilerOnPodman, TellsWhenTheRuntimeIsAwayAndGoesOnWhenItIsBack) {
  start_podman();
  const auto body = [&](Reconciler& on) -> Task<void> {
    on.want(one_service(1, images[0]), [] {});
    co_await until("v1 runs", phase(on, 1, ReportedState::CONFIRMED));
    const std::string before = containers();
    podman->stop();
    co_await until("a report", phase(on, 1, ReportedState::FAILED));
    EXPECT_EQ(on.report().error_code(), "runtime_unavailable");
    podman->start();
    co_await until("v1 is proven again", phase(on, 1, ReportedState::CONFIRMED));
    EXPECT_EQ(containers(), before);
  };
  run_task([&]() -> Task<void> { co_await with_reconciler(body); }, kPodmanLimit);
}

TEST_F(ReconcilerOnPodman, AHangingProbeDoesNotKeepACrashedServiceDown) {
  start_podman();
  const auto body = [&](Reconciler& on) -> Task<void> {
    DesiredState state = one_service(1, images[0]);
    auto* check = state.mutable_services(0)->mutable_healthcheck();
    for (const char* word : {"CMD", "/app"}) check->add_test(word);  // never ends
    check->set_interval_ms(1000);
    check->set_timeout_ms(1000);
    check->set_retries(2);
    add(state, "other", images[1]).set_network_mode("none");
    on.want(state, [] {});
    co_await until("unhealthy", phase(on, 1, ReportedState::FAILED));
    EXPECT_EQ(on.report().error_code(), "unhealthy");
    podman->run({"kill", "flock-other"});
    co_await until("a restart", [&] { return on.report().services(1).restart_count() == 1; });
  };
  run_task([&]() -> Task<void> { co_await with_reconciler(body); }, kPodmanLimit);
}

}  // namespace
}  // namespace flock::agent

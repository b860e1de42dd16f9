// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>

#include "domain/plan.h"

namespace flock::agent {
namespace {

// A device in memory: executes plans the way a runtime would.
struct Device {
  DesiredState desired, current;
  std::vector<Observed> containers;
  std::set<std::string> images;
  std::map<std::string, Memory> memory;
  SteadyPoint now{std::chrono::hours(1)};
  SteadyPoint settled_since{};
  int next_id = 0;
  std::vector<std::string> done;
  bool healthy = true;  // what probes say

  device::v1::Service& add(const std::string& name, const std::string& digest, bool check = false) {
    auto* service = desired.add_services();
    service->set_name(name);
    service->set_image("r.example/" + name + "@" + digest);
    service->mutable_restart()->set_policy(device::v1::Restart::ALWAYS);
    if (check) {
      service->mutable_healthcheck()->add_test("CMD");
      service->mutable_healthcheck()->set_interval_ms(10'000);
      service->mutable_healthcheck()->set_timeout_ms(3'000);
    }
    return *service;
  }
  static ConfigHashes hashes_of(const DesiredState& state) {
    ConfigHashes out;
    for (const auto& service : state.services()) out[service.name()] = service.SerializeAsString();
    return out;
  }
  World world() const {
    return World{desired, current, containers, images, hashes_of(desired), hashes_of(current), now};
  }
  Plan plan() {
    const Plan plan = make_plan(world(), memory, settled_since);
    if (!plan.settled)
      settled_since = {};
    else if (settled_since == SteadyPoint() || plan.began_anew)
      settled_since = now;
    if (plan.complete) current = desired;
    return plan;
  }
  void execute(const Action& action) {
    // A plan is made for one of the two; the one with the image decides here too.
    const auto& services =
        action.kind == ActionKind::kPull ? desired.services() : current.services();
    const auto service = std::find_if(services.begin(), services.end(),
                                      [&](const auto& s) { return s.name() == action.service; });
    done.push_back(std::to_string(static_cast<int>(action.kind)) + action.service);
    if (action.kind == ActionKind::kPull) images.insert(service->image());
    if (action.kind == ActionKind::kRemove)
      std::erase_if(containers, [&](const Observed& c) { return c.id == action.container; });
    if (action.kind == ActionKind::kCreate) {
      containers.push_back({std::to_string(++next_id),
                            action.service,
                            service->SerializeAsString(),
                            {service->image().substr(service->image().find('@') + 1)},
                            Run::kRunning,
                            0,
                            TimePoint(Duration(next_id)),
                            {}});
    }
    if (action.kind == ActionKind::kStart) {
      for (auto& c : containers) {
        if (c.id != action.container) continue;
        c.run = Run::kRunning;
        c.started += Duration(1);
      }
      Memory& known = memory[action.service];
      known.restarts++;
      known.run.failures++;
      known.run.retry_at = now + retry_pause(known.run.failures);
    }
    if (action.kind == ActionKind::kProbe)
      note_probe(memory[action.service], service->healthcheck(), healthy, now);
  }
  Plan step() {
    const Plan result = plan();
    for (const Action& action : result.actions) execute(action);
    now += Duration(500);
    return result;
  }
  Plan settle() {
    Plan last;
    for (int i = 0; i < 50; ++i) last = step();
    return last;
  }
};

TEST(Plan, WantsNothingFromADeviceWithoutDesiredState) {
  Device device;
  EXPECT_EQ(device.plan().phase, ReportedState::IDLE);
  EXPECT_TRUE(device.plan().actions.empty());
}

TEST(Plan, DownloadsBeforeItStopsAnything) {
  Device device;
  device.desired.set_version(1);
  device.add("web", "sha256:a");
  EXPECT_EQ(device.settle().phase, ReportedState::CONFIRMED);
  const std::string first = device.containers.at(0).id;
  device.desired.mutable_services(0)->set_image("r.example/web@sha256:b");
  device.desired.set_version(2);
  const Plan plan = device.plan();
  EXPECT_EQ(plan.phase, ReportedState::DOWNLOADING);
  ASSERT_EQ(plan.actions.size(), 1u);
  EXPECT_EQ(plan.actions[0].kind, ActionKind::kPull);
  EXPECT_EQ(device.settle().phase, ReportedState::CONFIRMED);
  ASSERT_EQ(device.containers.size(), 1u);
  EXPECT_NE(device.containers[0].id, first);
  EXPECT_TRUE(device.containers[0].image_digests.contains("sha256:b"));
}

TEST(Plan, LeavesWhatIsAsWantedAlone) {
  Device device;
  device.desired.set_version(1);
  device.add("web", "sha256:a");
  device.settle();
  device.done.clear();
  device.memory.clear();          // the agent was restarted
  device.desired.set_version(2);  // another version of the same
  device.settle();
  EXPECT_TRUE(device.done.empty());
}

TEST(Plan, StartsInOrderOfDependencies) {
  Device device;
  device.desired.set_version(1);
  auto* needs = device.add("a-web", "sha256:a").add_depends_on();
  needs->set_service("z-db");
  needs->set_condition(device::v1::Dependency::HEALTHY);
  device.add("z-db", "sha256:b", true);
  device.settle();
  const auto place = [&](const std::string& what) {
    return std::find(device.done.begin(), device.done.end(), what) - device.done.begin();
  };
  EXPECT_LT(place("2z-db"), place("4z-db"));
  EXPECT_LT(place("4z-db"), place("2a-web"));
}

TEST(Plan, SoaksBeforeItConfirms) {
  Device device;
  device.desired.set_version(1);
  device.desired.set_soak_ms(3000);
  device.add("web", "sha256:a");
  std::vector<int> phases;
  for (int i = 0; i < 15; ++i) phases.push_back(device.step().phase);
  EXPECT_EQ(std::count(phases.begin(), phases.end(), ReportedState::SOAKING), 6);
  EXPECT_EQ(phases.back(), ReportedState::CONFIRMED);
}

TEST(Plan, StartsACrashedServiceAgainAndTellsAfterThreeTimes) {
  Device device;
  device.desired.set_version(1);
  device.add("web", "sha256:a");
  device.settle();
  device.containers[0].run = Run::kExited;
  device.containers[0].exit_code = 3;
  device.memory["web"].run.failures = 3;
  device.memory["web"].run.retry_at = device.now + Duration(2000);
  const Plan plan = device.plan();
  EXPECT_TRUE(plan.actions.empty());
  EXPECT_EQ(plan.wake_at, device.memory["web"].run.retry_at);
  EXPECT_EQ(plan.phase, ReportedState::FAILED);
  EXPECT_EQ(plan.error_code, "exited");
  EXPECT_EQ(device.settle().phase, ReportedState::CONFIRMED);
}

TEST(Plan, TakesAOneShotThatEndedWellAsDone) {
  Device device;
  device.desired.set_version(1);
  device.add("job", "sha256:a").mutable_restart()->set_policy(device::v1::Restart::NO);
  device.step();
  device.step();
  device.containers.at(0).run = Run::kExited;
  EXPECT_EQ(device.settle().phase, ReportedState::CONFIRMED);
  device.containers[0].exit_code = 1;
  EXPECT_EQ(device.settle().phase, ReportedState::FAILED);
}

// A restart of the device, or a crash, in the middle of a download that cannot end: what ran before
// runs again.
TEST(Plan, KeepsThePreviousReleaseAliveWhileTheNextIsDownloaded) {
  Device device;
  device.desired.set_version(1);
  device.add("web", "sha256:a");
  device.settle();
  device.desired.mutable_services(0)->set_image("r.example/web@sha256:b");
  device.desired.set_version(2);
  device.memory.clear();
  device.containers[0].run = Run::kExited;
  device.containers[0].exit_code = 137;
  const Plan plan = device.plan();
  EXPECT_EQ(plan.phase, ReportedState::DOWNLOADING);
  ASSERT_EQ(plan.actions.size(), 2u);
  EXPECT_EQ(plan.actions[0].kind, ActionKind::kPull);
  EXPECT_EQ(plan.actions[1].kind, ActionKind::kStart);
  device.containers.clear();  // even one that is gone comes back, for its image is there
  EXPECT_EQ(device.plan().actions.back().kind, ActionKind::kCreate);
}

TEST(Plan, LeavesUnknownContainersAloneUntilTheyCanBeReplaced) {
  Device device;
  device.desired.set_version(1);
  device.add("web", "sha256:a");
  device.settle();
  device.current = {};  // the file was damaged
  device.images.clear();
  device.desired.mutable_services(0)->set_image("r.example/web@sha256:b");
  const Plan plan = device.plan();
  ASSERT_EQ(plan.actions.size(), 1u);
  EXPECT_EQ(plan.actions[0].kind, ActionKind::kPull);
}

TEST(Plan, TellsThatARegistryIsAwayOnlyAfterAMinute) {
  Device device;
  device.desired.set_version(1);
  device.add("web", "sha256:a");
  device.plan();
  Attempts& pull = device.memory["web"].pull;
  for (int i = 0; i < 4; ++i) {
    note_failure(pull, "image_pull_failed", "connection refused", device.now);
    device.now += Duration(5000);
  }
  pull.transient = true;
  EXPECT_EQ(device.plan().phase, ReportedState::DOWNLOADING);
  pull.transient = false;
  EXPECT_EQ(device.plan().phase, ReportedState::FAILED);
  pull.transient = true;
  device.now += Duration(60'000);
  const Plan plan = device.plan();
  EXPECT_EQ(plan.phase, ReportedState::FAILED);
  EXPECT_EQ(plan.error_code, "image_pull_failed");
}

TEST(Plan, SeesACrashLoopThoughItRunsInBetween) {
  Device device;
  device.desired.set_version(1);
  device.desired.set_soak_ms(60'000);
  device.add("web", "sha256:a");
  device.step();
  bool told = false;
  for (int i = 0; i < 100 && !told; ++i) {
    const Plan plan = device.step();
    EXPECT_NE(plan.phase, ReportedState::CONFIRMED);
    told = plan.phase == ReportedState::FAILED;
    for (auto& c : device.containers) {
      c.run = Run::kExited;
      c.exit_code = 1;
    }
  }
  EXPECT_TRUE(told);
  EXPECT_GE(device.memory["web"].run.failures, 3);
}

TEST(Plan, BeginsTheSoakAnewWhenAServiceWasStartedBehindItsBack) {
  Device device;
  device.desired.set_version(1);
  device.desired.set_soak_ms(5000);
  device.add("web", "sha256:a");
  for (int i = 0; i < 6; ++i) device.step();
  device.containers.at(0).started += Duration(1000);
  for (int i = 0; i < 9; ++i) EXPECT_EQ(device.step().phase, ReportedState::SOAKING);
  EXPECT_EQ(device.settle().phase, ReportedState::CONFIRMED);
}

TEST(Plan, StartsWhatNeedsAServiceThatHasEndedAlready) {
  Device device;
  device.desired.set_version(1);
  device.add("init", "sha256:a").mutable_restart()->set_policy(device::v1::Restart::NO);
  auto* needs = device.add("web", "sha256:b").add_depends_on();
  needs->set_service("init");
  needs->set_condition(device::v1::Dependency::STARTED);
  while (device.containers.empty()) device.step();
  device.containers[0].run = Run::kExited;
  EXPECT_EQ(device.settle().phase, ReportedState::CONFIRMED);
}

TEST(Plan, ReplacesGuestsOfANetworkBeforeItsHost) {
  Device device;
  device.desired.set_version(1);
  device.add("a-vpn", "sha256:a");
  device.add("b-web", "sha256:b").set_network_mode("service:a-vpn");
  EXPECT_EQ(device.settle().phase, ReportedState::CONFIRMED);
  device.done.clear();
  device.desired.mutable_services(0)->set_image("r.example/a-vpn@sha256:c");
  device.desired.set_version(2);
  EXPECT_EQ(device.settle().phase, ReportedState::CONFIRMED);
  EXPECT_EQ(device.done,
            (std::vector<std::string>{"0a-vpn", "1b-web", "1a-vpn", "2a-vpn", "2b-web"}));
}

TEST(Plan, AcceptsAnyManifestOfTheImageThatRuns) {
  Device device;
  device.desired.set_version(1);
  device.add("web", "sha256:a");
  device.settle();
  device.containers[0].image_digests = {"sha256:0", "sha256:a"};
  EXPECT_EQ(device.settle().phase, ReportedState::CONFIRMED);
  const Plan plan = device.plan();
  EXPECT_EQ(make_report(device.world(), plan, device.memory).services(0).image_digest(),
            "sha256:a");
}

TEST(Plan, StopsAfterTheAllowedRetriesOnFailure) {
  Device device;
  device.desired.set_version(1);
  auto* restart = device.add("web", "sha256:a").mutable_restart();
  restart->set_policy(device::v1::Restart::ON_FAILURE);
  restart->set_max_retries(2);
  device.step();
  for (int i = 0; i < 40; ++i) {
    device.step();
    for (auto& c : device.containers) {
      c.run = Run::kExited;
      c.exit_code = 1;
    }
  }
  EXPECT_EQ(device.memory["web"].restarts, 2);
  EXPECT_EQ(device.plan().phase, ReportedState::FAILED);
}

// --- Health checks by compose's rules

// Steps of 500 ms until `health`, at most `limit`; returns how long it took.
Duration until(Device& device, Health health, Duration limit) {
  const SteadyPoint began = device.now;
  while (device.memory["web"].health != health && device.now - began < limit) device.step();
  return std::chrono::duration_cast<Duration>(device.now - began);
}

TEST(Health, CountsFailuresOncePerIntervalThoughItProbesEverySecond) {
  Device device;
  device.desired.set_version(1);
  device.add("web", "sha256:a", true);
  device.healthy = false;
  device.step();
  device.step();
  const Duration took = until(device, Health::kUnhealthy, Duration(120'000));
  EXPECT_GE(took, Duration(29'000));  // three failures, the first one interval after the start
  EXPECT_LE(took, Duration(32'000));
  EXPECT_EQ(device.plan().error_code, "unhealthy");
  device.healthy = true;
  EXPECT_LE(until(device, Health::kHealthy, Duration(60'000)), Duration(11'000));
  EXPECT_EQ(device.settle().phase, ReportedState::CONFIRMED);
}

TEST(Health, FailuresInTheStartPeriodDoNotCount) {
  Device device;
  device.desired.set_version(1);
  device.add("web", "sha256:a", true).mutable_healthcheck()->set_start_period_ms(60'000);
  device.healthy = false;
  device.step();
  device.step();
  EXPECT_GE(until(device, Health::kUnhealthy, Duration(200'000)), Duration(79'000));
}

TEST(Health, AQuickServiceIsHealthyAtOnceAndOneFailureDoesNotMatter) {
  Device device;
  device.desired.set_version(1);
  device.add("web", "sha256:a", true);
  EXPECT_LE(until(device, Health::kHealthy, Duration(60'000)), Duration(2'000));
  Memory& memory = device.memory["web"];
  const auto& check = device.desired.services(0).healthcheck();
  device.now = memory.probe_at;
  note_probe(memory, check, false, device.now);
  EXPECT_EQ(memory.health, Health::kHealthy);
  EXPECT_EQ(memory.bad_probes, 1);
  note_probe(memory, check, true, device.now + Duration(10'000));
  EXPECT_EQ(memory.bad_probes, 0);
}

TEST(Health, AHangingProbeFailsByItsTimeoutAndIsNotDoubled) {
  Device device;
  device.desired.set_version(1);
  device.add("web", "sha256:a", true);
  device.settle();
  Memory& memory = device.memory["web"];
  memory.probing = true;
  memory.probe_fails_at = device.now + Duration(3000);
  int probes = 0;
  const SteadyPoint began = device.now;
  while (memory.health != Health::kUnhealthy && device.now - began < Duration(100'000)) {
    const Plan plan = device.plan();
    for (const Action& action : plan.actions) probes += action.kind == ActionKind::kProbe;
    device.now += Duration(500);
  }
  EXPECT_EQ(memory.health, Health::kUnhealthy);
  EXPECT_EQ(probes, 0);
  EXPECT_LE(device.now - began, Duration(35'000));
}

TEST(Health, TheImagesOwnCheckHoldsUnlessTheServiceHasOne) {
  Observed container;
  container.image_check.emplace().add_test("CMD");
  device::v1::Service service;
  EXPECT_TRUE(check_of(service, container).has_value());
  service.mutable_healthcheck()->add_test("NONE");
  EXPECT_FALSE(check_of(service, container).has_value());
}

// Random changes of the wish, crashes, lost images and agent restarts: the device always comes to
// what is wanted.
TEST(Plan, ConvergesWhateverHappens) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 200; ++round) {
    Device device;
    for (int event = 0; event < 20; ++event) {
      switch (random() % 5) {
        case 0: {
          device.desired.clear_services();
          device.desired.set_version(device.desired.version() + 1);
          for (unsigned i = random() % 4; i > 0; --i)
            device.add("s" + std::to_string(i), "sha256:" + std::to_string(random() % 3),
                       random() % 2);
          break;
        }
        case 1:
          for (auto& c : device.containers)
            if (random() % 2) {
              c.run = Run::kExited;
              c.exit_code = static_cast<int>(random() % 3);
            }
          break;
        case 2:
          device.memory.clear();
          break;
        case 3:
          if (!device.containers.empty()) device.containers.pop_back();
          break;
        default:
          break;
      }
      for (unsigned i = random() % 4; i > 0; --i) device.step();
    }
    if (device.desired.version() == 0) continue;
    for (int i = 0; i < 400; ++i) device.step();
    EXPECT_EQ(device.plan().phase, ReportedState::CONFIRMED);
    EXPECT_EQ(static_cast<int>(device.containers.size()), device.desired.services_size());
  }
}

}  // namespace
}  // namespace flock::agent

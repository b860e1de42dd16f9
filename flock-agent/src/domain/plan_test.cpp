// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>

#include "domain/plan.h"

namespace flock::agent {
namespace {

// A device in memory: executes plans the way a runtime would.
struct Device {
  DesiredState desired;
  std::vector<Observed> containers;
  std::set<std::string> images;
  std::map<std::string, Memory> memory;
  SteadyPoint now{std::chrono::hours(1)};
  SteadyPoint settled_since{};
  int next_id = 0;
  std::vector<std::string> done;

  device::v1::Service& add(const std::string& name, const std::string& digest, bool check = false) {
    auto* service = desired.add_services();
    service->set_name(name);
    service->set_image("r.example/" + name + "@" + digest);
    service->mutable_restart()->set_policy(device::v1::Restart::ALWAYS);
    if (check) {
      service->mutable_healthcheck()->add_test("CMD");
      service->mutable_healthcheck()->set_interval_ms(1000);
    }
    return *service;
  }
  World world() const {
    World out{desired, containers, images, {}, now};
    for (const auto& service : desired.services())
      out.config_hashes[service.name()] = service.SerializeAsString();
    return out;
  }
  Plan plan() {
    const Plan plan = make_plan(world(), memory, settled_since);
    if (!plan.settled)
      settled_since = {};
    else if (settled_since == SteadyPoint())
      settled_since = now;
    return plan;
  }
  void execute(const Action& action) {
    const auto& services = desired.services();
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
                            service->image().substr(service->image().find('@') + 1),
                            Run::kRunning,
                            0,
                            {}});
    }
    if (action.kind == ActionKind::kStart) {
      for (auto& c : containers)
        if (c.id == action.container) c.run = Run::kRunning;
      memory[action.service].restarts++;
    }
    if (action.kind == ActionKind::kProbe) {
      memory[action.service].health = Health::kHealthy;
      memory[action.service].probe_at = now + Duration(1000);
    }
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
  EXPECT_EQ(device.containers[0].image_digest, "sha256:b");
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
  device.memory["web"].failures = 3;
  device.memory["web"].retry_at = device.now + Duration(2000);
  const Plan plan = device.plan();
  EXPECT_TRUE(plan.actions.empty());
  EXPECT_EQ(plan.wake_at, device.memory["web"].retry_at);
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

// SPDX-License-Identifier: Apache-2.0
// What the scheduler and the ingester make of devices that fail, vanish, come late or speak out of
// turn.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>

#include "async/deadline.h"
#include "async/loop.h"
#include "base/json.h"
#include "stores/postgres/statements.h"
#include "targets/api_itest.h"
#include "testing/run_task.h"

namespace flock::targets {
namespace {

using namespace itest;
using flock::testing::run_task;
using Report = device::v1::ReportedState;
using Kind = device::v1::DeviceEvent;

// A tenant with a fleet `edge` and a key for it.
struct Site {
  Site(Executor executor, Stack& stack) : backend(executor, stack), api(executor, stack) {}
  Task<void> open() {
    co_await backend.start();
    api.token = co_await backend.make_tenant("Acme");
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    const bj::value key =
        co_await api.call("POST", "/v1/provisioning-keys", bj::object{{"fleet_id", "edge"}});
    secret = text(key, "secret");
  }
  // The rollout's id.
  Task<std::string> deploy(bj::object target, std::string release = "1",
                           std::string timeout = "10m") {
    const bj::value made = co_await api.call("POST", "/v1/deployments",
                                             bj::object{{"release_id", release},
                                                        {"target", std::move(target)},
                                                        {"soak", "0s"},
                                                        {"failure_timeout", timeout}});
    const std::string id = text(made, "id");
    std::string rollout;
    co_await eventually("the rollout begins", [&]() -> Task<bool> {
      const bj::value deployment = co_await api.call("GET", "/v1/deployments/" + id);
      if (text(deployment, "state") != "EXECUTED") co_return false;
      rollout = text(deployment, "rollout_id");
      co_return true;
    });
    co_return rollout;
  }
  Task<std::string> state_of(std::string rollout) {
    co_return text(co_await api.call("GET", "/v1/rollouts/" + rollout), "state");
  }
  Task<std::string> device_state(std::string rollout, std::string device) {
    const bj::value page = co_await api.call("GET", "/v1/rollouts/" + rollout + "/devices");
    for (const bj::value& item : page.at("items").as_array()) {
      if (text(item, "device_id") != device) continue;
      const bj::value* reason = item.as_object().if_contains("reason");
      co_return text(item, "state") + (reason ? " " + std::string(reason->as_string()) : "");
    }
    co_return "";
  }
  Task<void> until(std::string rollout, std::string state) {
    co_await eventually("the rollout is " + state,
                        [&]() -> Task<bool> { co_return co_await state_of(rollout) == state; });
  }
  Task<void> until_device(std::string rollout, std::string device, std::string state) {
    co_await eventually("the device is " + state, [&]() -> Task<bool> {
      co_return (co_await device_state(rollout, device)).starts_with(state);
    });
  }

  Backend backend;
  Api api;
  std::string secret;
};

class Rollouts : public SiteTest<Site> {};

TEST_F(Rollouts, AMissingPlatformFailsThatDeviceWithAClearReasonAndIsLeftAlone) {
  on_site([](Site& site) -> Task<void> {
    FakeDevice fits(site.backend), odd(site.backend, "riscv64");
    co_await fits.join(site.api, site.secret);
    co_await odd.join(site.api, site.secret);
    co_await site.backend.put_release(site.api.token, "1", {{"linux/amd64", "sha256:a"}});
    const std::string rollout = co_await site.deploy({{"fleet_id", "edge"}});
    co_await site.until_device(rollout, odd.id,
                               "FAILED missing_platform: the image of web is not there for "
                               "linux/riscv64, only for linux/amd64");
    co_await eventually("desired", [&]() -> Task<bool> { co_return fits.desired.version() == 1; });
    co_await fits.report(fits.state(Report::CONFIRMED));
    co_await site.until(rollout, "COMPLETED");
    // It is no latecomer: the scheduler does not take it up again in every round.
    const auto late = co_await site.backend.db.query(
        postgres::Scope::system(), postgres::sql::kLatecomers,
        postgres::Params()
            .text(std::string("00000000-0000-0000-0000-000000000000"))
            .text(std::string("ffffffff-ffff-ffff-ffff-ffffffffffff")));
    EXPECT_TRUE(late.empty());
    // What a release cannot reach keeps running, and counting, what it had.
    FakeDevice both(site.backend, "arm64");
    co_await both.join(site.api, site.secret);
    co_await site.backend.put_release(site.api.token, "2", {{"linux/arm64", "sha256:b"}});
    const bj::object only{{"device_ids", bj::array{bj::value(both.id)}}};
    const std::string second = co_await site.deploy(only, "2");
    co_await eventually("desired", [&]() -> Task<bool> { co_return both.desired.version() == 1; });
    const std::string third = co_await site.deploy(only, "1");
    co_await site.until_device(third, both.id, "FAILED missing_platform");
    EXPECT_EQ((co_await site.device_state(second, both.id)).substr(0, 10) == "SUPERSEDED", false);
  });
}

TEST_F(Rollouts, ALatecomerGetsWhatItsFleetRuns) {
  on_site([](Site& site) -> Task<void> {
    co_await site.backend.put_release(site.api.token, "1", {{"linux/amd64", "sha256:a"}});
    const std::string rollout = co_await site.deploy({{"fleet_id", "edge"}});
    co_await site.until(rollout, "COMPLETED");
    FakeDevice late(site.backend);
    co_await late.join(site.api, site.secret);
    co_await eventually("desired", [&]() -> Task<bool> { co_return late.desired.version() == 1; });
    EXPECT_EQ(late.desired.services(0).image(), "registry.example/acme/web@sha256:a");
  });
}

TEST_F(Rollouts, ARevokedDeviceIsNotWaitedFor) {
  on_site([](Site& site) -> Task<void> {
    FakeDevice device(site.backend);
    co_await device.join(site.api, site.secret);
    co_await site.backend.put_release(site.api.token, "1", {{"linux/amd64", "sha256:a"}});
    const std::string rollout = co_await site.deploy({{"fleet_id", "edge"}});
    co_await site.api.call("POST", "/v1/devices/" + device.id + "/actions/revoke");
    co_await site.until(rollout, "FAILED");
    EXPECT_EQ((co_await site.device_state(rollout, device.id)).substr(0, 21),
              "FAILED device_revoked");
  });
}

TEST_F(Rollouts, ATimeoutStaysATimeoutUnlessProvenOtherwise) {
  on_site([](Site& site) -> Task<void> {
    FakeDevice stuck(site.backend), slow(site.backend);
    co_await stuck.join(site.api, site.secret);
    co_await slow.join(site.api, site.secret);
    co_await site.backend.put_release(site.api.token, "1", {{"linux/amd64", "sha256:a"}});
    const std::string rollout = co_await site.deploy({{"fleet_id", "edge"}}, "1", "3s");
    co_await eventually("desired", [&]() -> Task<bool> {
      co_return stuck.desired.version() == 1 && slow.desired.version() == 1;
    });
    co_await stuck.report(stuck.state(Report::STARTING));
    co_await site.until_device(rollout, stuck.id, "STARTING");
    TaskScope busy(site.backend.executor);
    const auto keep_going = [&]() -> Task<void> {
      for (int i = 0;; ++i) {
        co_await slow.report(slow.state(i % 2 == 0 ? Report::DOWNLOADING : Report::STARTING));
        co_await sleep_for(Duration(500));
      }
    };
    busy.spawn("slow", keep_going());
    co_await site.until_device(rollout, stuck.id, "FAILED the device did not confirm in time");
    co_await stuck.report(stuck.state(Report::SOAKING));
    co_await sleep_for(Duration(500));
    EXPECT_TRUE((co_await site.device_state(rollout, stuck.id)).starts_with("FAILED"));
    busy.cancel();
    co_await busy.join();
    co_await stuck.report(stuck.state(Report::CONFIRMED));
    co_await site.until_device(rollout, stuck.id, "CONFIRMED");
  });
}

TEST_F(Rollouts, ALateReportDoesNotTurnTheClockBack) {
  on_site([](Site& site) -> Task<void> {
    FakeDevice device(site.backend);
    co_await device.join(site.api, site.secret);
    co_await site.backend.put_release(site.api.token, "1", {{"linux/amd64", "sha256:a"}});
    const std::string rollout = co_await site.deploy({{"fleet_id", "edge"}});
    co_await eventually("desired",
                        [&]() -> Task<bool> { co_return device.desired.version() == 1; });
    const Report early = device.state(Report::DOWNLOADING);
    co_await device.report(device.state(Report::SOAKING));
    co_await site.until_device(rollout, device.id, "SOAKING");
    co_await device.report(early);
    // The marker behind it says nothing about the rollout; when it is through, the late one was
    // judged.
    Report marker = device.state(Report::IDLE);
    marker.set_agent_version("marker");
    co_await device.report(marker);
    co_await eventually("the marker", [&]() -> Task<bool> {
      const auto ids = std::vector<DeviceId>{DeviceId::parse(device.id)};
      const auto live = co_await site.backend.live->get_reported(ids);
      Report seen;
      co_return live.at(0) && seen.ParseFromString(*live.at(0)) && seen.agent_version() == "marker";
    });
    co_await sleep_for(Duration(200));
    EXPECT_EQ(co_await site.device_state(rollout, device.id), "SOAKING");
  });
}

TEST_F(Rollouts, TheirStartAndEndAreTold) {
  on_site([](Site& site) -> Task<void> {
    std::map<std::string, std::vector<internal::v1::RolloutState>> all;  // by rollout
    mqtt::Subscription states;
    states.filter = "flock/internal/v1/rollout/state";
    co_await site.backend.bus.subscribe(states, [&](mqtt::Delivery delivery) {
      internal::v1::RolloutState state;
      EXPECT_TRUE(state.ParseFromString(delivery.message.payload));
      all[state.rollout_id()].push_back(state);
      delivery.ack();
    });
    FakeDevice device(site.backend);
    co_await device.join(site.api, site.secret);
    co_await site.backend.put_release(site.api.token, "1", {{"linux/amd64", "sha256:a"}});
    const std::string rollout = co_await site.deploy({{"fleet_id", "edge"}});
    const auto& told = all[rollout];
    co_await eventually("the start", [&]() -> Task<bool> { co_return told.size() == 1; });
    co_await site.api.call("POST", "/v1/devices/" + device.id + "/actions/revoke");
    co_await eventually("the end", [&]() -> Task<bool> { co_return told.size() == 2; });
    // A scheduler that was killed before it noted that it told.
    co_await site.backend.db.query(postgres::Scope::system(),
                                   "UPDATE rollout_decisions SET told = false WHERE rollout_id = "
                                   "$1 AND step IN ('BEGIN', 'END')",
                                   postgres::Params().text(rollout));
    co_await eventually("both again", [&]() -> Task<bool> { co_return told.size() == 4; });
    const bj::value now = co_await site.api.call("GET", "/v1/rollouts/" + rollout);
    for (std::size_t i = 0; i < told.size(); ++i) {
      EXPECT_EQ(told[i].state(), i % 2 == 0 ? "RUNNING" : "FAILED");
      EXPECT_EQ(told[i].reason(), i % 2 == 0 ? "it begins" : text(now, "reason"));
      EXPECT_EQ(told[i].at_ms(), told[i % 2].at_ms()) << "the same news, not another";
    }
    co_await site.backend.bus.unsubscribe(states.filter);
  });
}

TEST_F(Rollouts, ADeviceThatShowsAnOlderVersionIsSentTheStoredOneAgain) {
  on_site([](Site& site) -> Task<void> {
    FakeDevice device(site.backend);
    co_await device.join(site.api, site.secret);
    co_await site.backend.put_release(site.api.token, "1", {{"linux/amd64", "sha256:a"}});
    const std::string rollout = co_await site.deploy({{"fleet_id", "edge"}});
    co_await eventually("desired",
                        [&]() -> Task<bool> { co_return device.desired.version() == 1; });
    co_await device.report(device.state(Report::CONFIRMED));
    co_await site.until(rollout, "COMPLETED");
    // The broker lost its retained messages and the device its disk.
    mqtt::Message lost;
    lost.topic = "devices/" + device.id + "/desired";
    lost.retain = true;
    co_await site.backend.bus.publish(std::move(lost));
    co_await eventually("nothing retained",
                        [&]() -> Task<bool> { co_return device.desired.version() == 0; });
    co_await device.report(device.state(Report::IDLE));
    co_await eventually("sent again",
                        [&]() -> Task<bool> { co_return device.desired.version() == 1; });
  });
}

TEST_F(Rollouts, WithoutABrokerNothingIsChangedAndARunningRolloutGoesOnAfterwards) {
  on_site([this](Site& site) -> Task<void> {
    FakeDevice device(site.backend), other(site.backend);
    co_await device.join(site.api, site.secret);
    co_await other.join(site.api, site.secret);
    co_await site.backend.put_release(site.api.token, "1", {{"linux/amd64", "sha256:a"}});
    const std::string rollout =
        co_await site.deploy({{"device_ids", bj::array{bj::value(device.id)}}});
    co_await eventually("desired",
                        [&]() -> Task<bool> { co_return device.desired.version() == 1; });
    stack->stop_broker();
    const SteadyPoint begin = std::chrono::steady_clock::now();
    co_await site.api.call("POST", "/v1/devices/" + other.id + "/actions/revoke");
    EXPECT_EQ(site.api.last.status, 503) << site.api.last.body;
    EXPECT_NE(site.api.last.body.find("audit"), std::string::npos) << site.api.last.body;
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(8));
    const bj::value kept = co_await site.api.call("GET", "/v1/devices/" + other.id);
    EXPECT_NE(text(kept, "state"), "REVOKED");
    co_await site.api.call("PATCH", "/v1/fleets/edge", bj::object{{"name", "Changed"}});
    EXPECT_EQ(site.api.last.status, 503) << site.api.last.body;
    EXPECT_NE(text(co_await site.api.call("GET", "/v1/fleets/edge"), "name"), "Changed");
    stack->start_broker();
    co_await eventually(
        "connected", [&]() -> Task<bool> { co_return site.backend.bus.connected(); },
        Duration(20'000));
    co_await device.report(device.state(Report::CONFIRMED));
    co_await site.until(rollout, "COMPLETED");
  });
}

TEST_F(Rollouts, PresenceFollowsWhatTheDeviceSays) {
  stack->settings.presence_every = Duration(300);
  on_site([](Site& site) -> Task<void> {
    FakeDevice device(site.backend), other(site.backend);
    co_await device.join(site.api, site.secret);
    co_await other.join(site.api, site.secret);
    const auto is = [&](const char* state) {
      return eventually(state, [&site, &device, state]() -> Task<bool> {
        co_return text(co_await site.api.call("GET", "/v1/devices/" + device.id), "state") == state;
      });
    };
    co_await device.report(device.state(Report::IDLE));
    co_await is("ONLINE");
    const bj::value online = co_await site.api.call("GET", "/v1/devices?state=ONLINE");
    EXPECT_EQ(online.at("items").as_array().size(), 1u);
    const bj::value offline =
        co_await site.api.call("GET", "/v1/devices?state=OFFLINE&fleet_id=edge");
    EXPECT_EQ(offline.at("items").as_array().size(), 1u);
    // Heard from just before a clean stop: the sweep does not bring it back.
    co_await device.report(device.state(Report::IDLE));
    co_await device.tell(Kind::OFFLINE);
    co_await is("OFFLINE");
    co_await sleep_for(Duration(900));
    co_await is("OFFLINE");
    EXPECT_EQ(text(co_await site.api.call("GET", "/v1/devices/" + device.id), "state"), "OFFLINE");
    // A clock from another age in a report is shown as a time all the same.
    Report odd = device.state(Report::IDLE);
    odd.set_at_ms(INT64_MAX);
    co_await device.report(odd);
    co_await is("ONLINE");
    co_await site.api.call("GET", "/v1/devices");
    EXPECT_EQ(site.api.last.status, 200);
  });
  stack->settings.presence_every = Settings().presence_every;
}

// Starts and stops targets at random points, as an orchestrator under pressure would.
// FLOCK_TEST_CYCLES and FLOCK_TEST_SEED choose more and which.
TEST(Lifecycle, EveryTargetStopsAtAnyPointWithoutLeakOrHang) {
  Stack* const stack = Stack::get();
  if (stack == nullptr) GTEST_SKIP() << "the servers are not installed";
  const char* cycles = std::getenv("FLOCK_TEST_CYCLES");
  const char* seed_text = std::getenv("FLOCK_TEST_SEED");
  const unsigned seed =
      seed_text ? static_cast<unsigned>(std::stoul(seed_text)) : std::random_device()();
  SCOPED_TRACE("FLOCK_TEST_SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  const auto open_files = [] {
    const std::filesystem::directory_iterator files("/proc/self/fd");
    return std::distance(begin(files), end(files));
  };
  const auto cycle = [&](std::unique_ptr<Target> (*make)(Parts)) {
    run_task(
        [&]() -> Task<void> {
          Backend backend(co_await asio::this_coro::executor, *stack);
          if (random() % 4 != 0) co_await backend.db.migrate();
          backend.scope.spawn("bus", backend.bus.run());
          if (random() % 2 == 0) co_await backend.bus.wait_connected();
          const auto target = make(backend.parts());
          TaskScope starting(backend.executor);
          bool stopping = false;
          starting.on_failure([&](const std::string&, std::exception_ptr) {
            EXPECT_TRUE(stopping) << "the target did not start";
          });
          starting.spawn("start", target->start());
          co_await sleep_for(Duration(random() % 40));
          stopping = true;
          starting.cancel();
          co_await starting.join();
          co_await with_deadline(target->drain(), Duration(3000), "drain");
          co_await with_deadline(target->stop(), Duration(3000), "stop");
          backend.scope.cancel();
          co_await with_deadline(backend.scope.join(), Duration(3000), "the connections");
        },
        Duration(15'000));
  };
  const auto makers = {make_api_target, make_ingester_target, make_scheduler_target,
                       make_events_gateway_target};
  for (const auto make : makers) cycle(make);  // what is made once in a process exists now
  const auto before = open_files();
  for (int i = 0; i < (cycles ? std::stoi(cycles) : 30) && !HasFailure(); ++i)
    cycle(std::data(makers)[random() % makers.size()]);
  EXPECT_EQ(open_files(), before);
}

}  // namespace
}  // namespace flock::targets

// SPDX-License-Identifier: Apache-2.0
// Rollouts in stages, with devices that do what the test has them do.
#include <gtest/gtest.h>

#include <set>

#include "base/json.h"
#include "stores/postgres/rollout_statements.h"
#include "targets/rollout_fleet_itest.h"

namespace flock::targets {
namespace {

using namespace itest;

class StagedRollouts : public SiteTest<Fleet> {};

TEST_F(StagedRollouts, ADeviceThatWentBackByItselfHasFailedAndShowsWhatItRuns) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(1);
    co_await f.until(co_await f.deploy("1", {{"kind", "immediate"}}), "COMPLETED");
    f.held = {"2"};
    FakeDevice& device = *f.devices.front();
    const std::string first = device.desired.release_id();
    const std::string rollout = co_await f.deploy("2", {{"kind", "immediate"}});
    co_await f.until_given("2", 1);
    EXPECT_EQ(device.desired.start_timeout_ms(), 600'000) << "the deployment's failure_timeout";
    Report report = device.state(Report::FAILED);
    report.set_error_code("exited");
    report.set_error("web exited with code 3; this device runs 1 again");
    report.mutable_rollback()->set_release_id(first);
    report.mutable_rollback()->set_release_version("1");
    report.mutable_rollback()->set_phase(Report::CONFIRMED);
    report.mutable_rollback()->set_at_ms(to_unix_ms(system_clock().now()));
    co_await device.report(std::move(report));
    const bj::value done = co_await f.until(rollout, "FAILED");
    EXPECT_EQ(done.at_pointer("/counts/failed").as_int64(), 1);
    const bj::value part = co_await f.api.call("GET", rollout + "/devices");
    EXPECT_EQ(text(part.at_pointer("/items/0"), "reason"),
              "exited: web exited with code 3; this device runs 1 again");
    const bj::value shown = co_await f.api.call("GET", "/v1/devices/" + device.id);
    EXPECT_EQ(shown.at_pointer("/reported/rollback/release_id").as_string(), first);
    EXPECT_EQ(shown.at_pointer("/reported/rollback/release_version").as_string(), "1");
    EXPECT_EQ(shown.at_pointer("/reported/rollback/phase").as_string(), "CONFIRMED");
  });
}

TEST_F(StagedRollouts, AStageBeginsAfterTheOneBeforeIt) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(4);
    f.held = {"1"};
    const std::string rollout =
        co_await f.deploy("1", staged({bj::object{{"count", 1}, {"soak", "1s"}}}));
    co_await f.until_given("1", 1);
    co_await sleep_for(Duration(2500));  // a round of the scheduler
    EXPECT_EQ(f.given("1"), 1u);
    const bj::value waiting = co_await f.api.call("GET", rollout);
    EXPECT_EQ(text(waiting, "reason"), "1 device is updating (0 confirmed, 0 failed)");
    EXPECT_EQ(waiting.at_pointer("/counts/waiting").as_int64(), 3);
    f.held.clear();
    const bj::value done = co_await f.until(rollout, "COMPLETED");
    EXPECT_EQ(done.at("stage").as_int64(), 2);
    EXPECT_EQ(done.at_pointer("/counts/confirmed").as_int64(), 4);
    const auto steps = co_await f.steps(rollout);
    EXPECT_TRUE(steps.contains("NEXT_STAGE") && steps.contains("LET_GO") && steps.contains("END"));
    co_await f.grow(1);  // the fleet runs it now
    co_await f.until_given("1", 5);
  });
}

TEST_F(StagedRollouts, ABadReleaseIsTakenBackFromThoseThatGotIt) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(4);
    co_await f.until(co_await f.deploy("1", {{"kind", "immediate"}}), "COMPLETED");
    f.bad = {"2"};
    const std::string rollout = co_await f.deploy(
        "2", staged({bj::object{{"percent", 50}}},
                    {{"on_failure", "ROLL_BACK"},
                     {"gates", bj::array{bj::object{
                                   {"signal", "failed"}, {"at_most", 0.2}, {"sample", 2}}}}}));
    const bj::value back = co_await f.until(rollout, "ROLLED_BACK");
    EXPECT_EQ(back.at_pointer("/counts/rolled_back").as_int64(), 2);
    EXPECT_EQ(back.at_pointer("/counts/skipped").as_int64(), 2);
    EXPECT_TRUE(text(back, "reason").find("failed") != std::string::npos) << text(back, "reason");
    EXPECT_EQ(f.given("1"), 4u);
    std::multiset<std::int64_t> versions;
    for (const auto& device : f.devices) versions.insert(device->desired.version());
    EXPECT_EQ(versions, (std::multiset<std::int64_t>{1, 1, 3, 3})) << "the others were not touched";
    const bj::value page = co_await f.api.call("GET", rollout + "/devices");
    int told = 0;
    for (const bj::value& item : page.at("items").as_array())
      told += item.as_object().contains("reason") && text(item, "state") == "ROLLED_BACK";
    EXPECT_EQ(told, 0);
    const bj::value causes = co_await f.api.call("GET", rollout + "/failures");
    EXPECT_EQ(text(causes.at_pointer("/items/0"), "cause"), "exited") << "they failed all the same";
    EXPECT_EQ(text(back.at_pointer("/gates/0"), "result"), "FAIL") << "as when it turned back";
    // Nobody gets it again by itself: neither those nor newcomers.
    co_await f.grow(1);
    co_await f.until_given("1", 5);
    EXPECT_EQ(f.given("2"), 0u);
    co_await f.api.call("POST", rollout + "/actions/resume");
    EXPECT_EQ(f.api.last.status, 409) << f.api.last.body;
  });
}

TEST_F(StagedRollouts, DevicesThatHadNothingGoBackToNothing) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(2);
    const std::string rollout = co_await f.deploy("1", {{"kind", "immediate"}});
    co_await f.until(rollout, "COMPLETED");
    co_await f.order(rollout, "roll-back");
    const bj::value back = co_await f.until(rollout, "ROLLED_BACK");
    EXPECT_EQ(text(back, "reason"), "an operator took it back");
    for (const auto& device : f.devices) {
      EXPECT_EQ(device->desired.version(), 2);
      EXPECT_EQ(device->desired.services_size(), 0);
    }
    const bj::value fleet = co_await f.api.call("GET", "/v1/fleets/edge");
    EXPECT_FALSE(fleet.as_object().contains("release")) << bj::serialize(fleet);
  });
}

TEST_F(StagedRollouts, LimitsHold) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(3);
    f.held = {"1"};
    const std::string rollout =
        co_await f.deploy("1", {{"kind", "immediate"}, {"max_updating", 2}});
    co_await f.until_given("1", 2);
    co_await sleep_for(Duration(2500));
    EXPECT_EQ(f.given("1"), 2u);
    co_await f.grow(1);  // a newcomer waits as the others do
    co_await sleep_for(Duration(2500));
    EXPECT_EQ(f.given("1"), 2u);
    f.held.clear();
    co_await f.until(rollout, "COMPLETED");
    co_await f.until_given("1", 4);
    co_await f.grow(1);
    co_await f.until_given("1", 5);
  });
}

TEST_F(StagedRollouts, AnOperatorPausesAdvancesAndAborts) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(4);
    const std::string rollout = co_await f.deploy(
        "1", {{"kind", "manual"},
              {"stages", bj::array{bj::object{{"count", 1}}, bj::object{{"count", 2}}}}});
    const auto why = [&](std::string part) {
      return eventually(part, [&f, rollout, part]() -> Task<bool> {
        const std::string reason = text(co_await f.api.call("GET", rollout), "reason");
        co_return reason.find(part) != std::string::npos;
      });
    };
    co_await why("stage 1 of 3 is done; an operator lets the next one begin");
    co_await f.order(rollout, "pause");
    co_await f.until(rollout, "PAUSED");
    co_await f.order(rollout, "resume");
    co_await f.order(rollout, "advance");
    co_await why("stage 2 of 3 is done");
    EXPECT_EQ(f.given("1"), 2u);
    co_await f.order(rollout, "abort");
    const bj::value end = co_await f.until(rollout, "ABORTED");
    EXPECT_EQ(end.at_pointer("/counts/skipped").as_int64(), 2);
    EXPECT_TRUE(end.as_object().contains("ended_at"));
    const auto steps = co_await f.steps(rollout);
    for (const char* ordered : {"pause", "resume", "advance", "abort"})
      EXPECT_TRUE(steps.contains(ordered)) << ordered;
    co_await f.order(rollout, "roll-back");
    co_await f.until(rollout, "ROLLED_BACK");
    EXPECT_EQ(f.given("1"), 0u);
  });
}

TEST_F(StagedRollouts, ANewerDeploymentTakesWhatHasNotBegun) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(3);
    f.held = {"1"};
    const std::string older = co_await f.deploy("1", staged({bj::object{{"count", 1}}}));
    co_await f.until_given("1", 1);
    const std::string newer = co_await f.deploy("2", {{"kind", "immediate"}});
    co_await f.until(newer, "COMPLETED");
    const bj::value end = co_await f.until(older, "SUPERSEDED");
    EXPECT_EQ(text(end, "reason"), "newer deployments took every device");
    EXPECT_EQ(f.given("2"), 3u);
  });
}

TEST_F(StagedRollouts, AGateThatIsNotMetStopsAndOneThatCannotBeJudgedPauses) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(3);
    f.bad = {"1"};
    const auto gate = [](const char* signal, const char* limit, double value, int sample) {
      return bj::array{bj::object{{"signal", signal}, {limit, value}, {"sample", sample}}};
    };
    const std::string stopped = co_await f.deploy(
        "1", staged({bj::object{{"count", 2}}}, {{"gates", gate("failed", "at_most", 0.4, 1)}}));
    const bj::value end = co_await f.until(stopped, "FAILED");
    EXPECT_TRUE(text(end, "reason").starts_with("failed 100 % of") ||
                text(end, "reason").find("devices failed") != std::string::npos)
        << text(end, "reason");
    EXPECT_EQ(end.at_pointer("/gates/0/result"), "FAIL");
    const std::string unsure = co_await f.deploy(
        "2",
        staged({bj::object{{"count", 1}}}, {{"gates", gate("confirmed", "at_least", 0.9, 2)}}));
    const bj::value paused = co_await f.until(unsure, "PAUSED");
    EXPECT_EQ(text(paused, "reason"),
              "it cannot be judged: confirmed was measured on 1 of at least 2 devices");
    co_await f.order(unsure, "advance");
    co_await f.until(unsure, "COMPLETED");
  });
}

TEST_F(StagedRollouts, BeginsAtItsTime) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(1);
    const std::string rollout = co_await f.deploy(
        "1",
        {{"kind", "immediate"}, {"start_at", to_rfc3339(system_clock().now() + Duration(4000))}});
    EXPECT_EQ(text(co_await f.api.call("GET", rollout), "state"), "SCHEDULED");
    EXPECT_EQ(f.given("1"), 0u);
    co_await f.until(rollout, "COMPLETED");
  });
}

std::string minutes_from_now(int minutes) {
  return to_rfc3339(system_clock().now() + Duration(minutes * 60'000)).substr(11, 5);
}

TEST_F(StagedRollouts, DevicesBeginInTheirOwnWindows) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(3);
    // By UTC the window is open; ten hours east of it, where two devices are, it is not.
    for (std::size_t i : {1U, 2U})
      co_await f.api.call("PATCH", "/v1/devices/" + f.devices[i]->id,
                          bj::object{{"attributes", {{"time_zone", "Etc/GMT-10"}}}});
    EXPECT_EQ(f.api.last.status, 200) << f.api.last.body;
    const std::string rollout =
        co_await f.deploy("1", {{"kind", "immediate"},
                                {"windows", bj::array{bj::object{{"from", minutes_from_now(-60)},
                                                                 {"to", minutes_from_now(60)}}}}});
    co_await f.until_given("1", 1);
    co_await eventually("the others wait", [&]() -> Task<bool> {
      const std::string reason = text(co_await f.api.call("GET", rollout), "reason");
      co_return reason.starts_with("2 devices wait for their maintenance window; the next opens ");
    });
    EXPECT_EQ(f.devices[0]->desired.release_version(), "1");
    co_await f.api.call("PATCH", "/v1/devices/" + f.devices[1]->id,
                        bj::object{{"attributes", {{"time_zone", "Etc/UTC"}}}});
    co_await f.until_given("1", 2);
    co_await f.order(rollout, "abort");
  });
}

TEST_F(StagedRollouts, FailuresAreTriedAgainByThemselvesAndByOrder) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(2);
    co_await f.until(co_await f.deploy("1", {{"kind", "immediate"}}), "COMPLETED");
    f.bad = {"2"};
    const std::string rollout =
        co_await f.deploy("2", {{"kind", "immediate"}, {"retries", 1}, {"retry_after", "1s"}});
    const bj::value failed = co_await f.until(rollout, "FAILED");
    EXPECT_EQ(failed.at_pointer("/counts/failed").as_int64(), 2);
    for (const auto& device : f.devices) EXPECT_EQ(device->desired.version(), 3) << "tried twice";
    const bj::value causes = co_await f.api.call("GET", rollout + "/failures");
    EXPECT_EQ(text(causes.at_pointer("/items/0"), "cause"), "exited");
    EXPECT_EQ(causes.at_pointer("/items/0/devices").as_int64(), 2);
    f.bad.clear();
    co_await f.order(rollout, "retry");
    const bj::value done = co_await f.until(rollout, "COMPLETED");
    EXPECT_EQ(done.at_pointer("/counts/confirmed").as_int64(), 2);
    co_await f.api.call("POST", rollout + "/actions/retry");
    EXPECT_EQ(f.api.last.status, 409) << "nobody failed any more";
    co_await f.order(rollout, "roll-back");
    co_await f.until(rollout, "ROLLED_BACK");
    EXPECT_EQ(f.given("1"), 2u) << "where they came from is not the release that was tried twice";
  });
}

// What is wrong with a strategy is said with its place.
TEST_F(StagedRollouts, AStrategyThatMakesNoSenseIsRefused) {
  on_site([](Fleet& f) -> Task<void> {
    const std::pair<const char*, const char*> cases[] = {
        {R"({"kind":"sudden"})", "/strategy/kind"},
        {R"({"kind":"progressive"})", "/strategy/stages"},
        {R"({"kind":"immediate","stages":[{"percent":5}]})", "/strategy/stages"},
        {R"({"kind":"progressive","stages":[{"percent":5},{"percent":5}]})",
         "/strategy/stages/1/percent"},
        {R"({"kind":"progressive","stages":[{"percent":5,"count":2}]})",
         "/strategy/stages/0/percent"},
        {R"({"kind":"canary","stages":[{"percent":5},{"percent":9},{"percent":10}]})",
         "/strategy/stages"},
        {R"({"kind":"immediate","gates":[{"signal":"mood","at_least":1}]})",
         "/strategy/gates/0/signal"},
        {R"({"kind":"immediate","gates":[{"signal":"failed","at_least":1}]})",
         "/strategy/gates/0/at_most"},
        {R"({"kind":"immediate","gates":[{"signal":"failed","at_most":7}]})",
         "/strategy/gates/0/at_most"},
        {R"({"kind":"immediate","on_failure":"CRY"})", "/strategy/on_failure"},
        {R"({"kind":"immediate","start_at":"tomorrow"})", "/strategy/start_at"},
        {R"({"kind":"immediate","offline_patience":"1000d"})", "/strategy/offline_patience"},
        {R"({"kind":"immediate","windows":[{"from":"02:00","to":"02:00"}]})",
         "/strategy/windows/0/to"},
        {R"({"kind":"immediate","windows":[{"from":"2 am","to":"04:00"}]})",
         "/strategy/windows/0/from"},
        {R"({"kind":"immediate","windows":[{"days":[],"from":"02:00","to":"04:00"}]})",
         "/strategy/windows/0/days"},
        {R"({"kind":"immediate","windows":[{"from":"02:00","to":"04:00","time_zone":"Oslo"}]})",
         "/strategy/windows/0/time_zone"},
        {R"({"kind":"immediate","retries":11})", "/strategy/retries"},
        {R"({"kind":"immediate","max_down_per":{"label":"site"}})", "/strategy/max_down_per/count"},
        {R"({"kind":"immediate","max_down_per":{"label":"","count":1}})",
         "/strategy/max_down_per/label"},
        {R"({"kind":"immediate","colour":"red"})", "/strategy/colour"},
    };
    for (const auto& [strategy, pointer] : cases) {
      const bj::value answer = co_await f.api.call("POST", "/v1/deployments",
                                                   bj::object{{"release_id", "1"},
                                                              {"target", {{"fleet_id", "edge"}}},
                                                              {"strategy", json::parse(strategy)}});
      EXPECT_EQ(f.api.last.status, 400) << strategy << f.api.last.body;
      EXPECT_NE(f.api.last.body.find("\"" + std::string(pointer) + "\""), std::string::npos)
          << strategy << f.api.last.body;
    }
  });
}

}  // namespace
}  // namespace flock::targets

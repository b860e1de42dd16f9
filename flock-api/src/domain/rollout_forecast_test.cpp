// SPDX-License-Identifier: Apache-2.0
#include "domain/rollout_forecast.h"

#include <gtest/gtest.h>

namespace flock::domain {
namespace {

constexpr std::int64_t kNow = 1'800'000'000'000;
constexpr std::int64_t kMinutes = 60'000, kHours = 60 * kMinutes;
const DeviceTimes kTimes{.soak = Duration(30'000), .failure_timeout = Duration(10 * kMinutes)};

Forecast of(const RolloutPlan& plan, std::int64_t total, std::int64_t offline = 0) {
  return forecast(plan, stage_ends(plan, total), offline, kTimes, kNow);
}

TEST(Forecast, SumsTheSoaksOfStagesAndDevices) {
  RolloutPlan plan;
  plan.stages = {{.share = 0.1, .soak = Duration(kHours)}, {.share = 1}};
  const Forecast seen = of(plan, 100);
  EXPECT_EQ(seen.begins_ms, kNow);
  EXPECT_EQ(seen.earliest_end_ms, kNow + kHours + 2 * 30'000);
  EXPECT_EQ(seen.latest_end_ms, kNow + kHours + 2 * 10 * kMinutes);
  EXPECT_EQ(of(plan, 0).earliest_end_ms, kNow) << "nobody is waited for";
}

TEST(Forecast, LimitsMakeItLonger) {
  RolloutPlan plan;
  plan.limits.updating = 10;  // ten rounds of a hundred
  EXPECT_EQ(of(plan, 100).earliest_end_ms, kNow + 10 * 30'000);
  EXPECT_EQ(of(plan, 100).latest_end_ms, kNow + 100 * kMinutes);
  plan.limits = {.updating = 0, .per_minute = 10};  // the last ten begin after nine minutes
  EXPECT_EQ(of(plan, 100).earliest_end_ms, kNow + 9 * kMinutes + 30'000);
  EXPECT_EQ(of(plan, 10).earliest_end_ms, kNow + 30'000);
}

TEST(Forecast, WhoIsDownWithTheSameLabelIsWaitedFor) {
  RolloutPlan plan;
  plan.limits.down = {"site", 1};
  EXPECT_EQ(of(plan, 10).unless, "devices with the same site wait for those of them that are down");
  EXPECT_FALSE(of(plan, 10).latest_end_ms);
}

TEST(Forecast, WhoIsAwayIsWaitedFor) {
  RolloutPlan plan;
  plan.offline_patience = Duration(24 * kHours);
  EXPECT_EQ(of(plan, 10, 1).latest_end_ms, kNow + 24 * kHours);
  EXPECT_EQ(of(plan, 10, 1).earliest_end_ms, kNow + 30'000);
}

TEST(Forecast, EachTryTakesItsTime) {
  RolloutPlan plan;
  plan.retries = {.times = 2, .after = Duration(5 * kMinutes)};
  EXPECT_EQ(of(plan, 10).latest_end_ms, kNow + 40 * kMinutes);
  EXPECT_EQ(of(plan, 10).earliest_end_ms, kNow + 30'000);
  plan.windows.emplace_back();
  EXPECT_EQ(of(plan, 10).unless, "devices begin in their maintenance windows only");
}

TEST(Forecast, NobodyKnowsWhatPeopleDecide) {
  RolloutPlan plan;
  plan.start_at_ms = kNow + kHours;
  EXPECT_EQ(of(plan, 1).begins_ms, kNow + kHours);
  EXPECT_EQ(of(plan, 1).unless, "");
  plan.stages = {{.count = 1, .by_hand = true}, {.share = 1, .by_hand = true}};
  EXPECT_EQ(of(plan, 5).unless, "stage 2 begins when an operator says so");
  EXPECT_FALSE(of(plan, 5).latest_end_ms);
  plan.approval = true;
  EXPECT_EQ(of(plan, 5).unless, "it waits for the approval of a second person");
}

}  // namespace
}  // namespace flock::domain

// SPDX-License-Identifier: Apache-2.0
#include "services/retention.h"

#include <gtest/gtest.h>

namespace flock::services {
namespace {

constexpr std::int64_t kDay = 86'400'000;
const TimePoint kNow = from_unix_ms(20'000 * kDay + 5);

std::string told(const std::vector<stores::Expiry>& plan) {
  std::string out;
  for (const stores::Expiry& expiry : plan) {
    out += "[";
    for (const std::string& org : expiry.orgs) out += org + " ";
    for (const std::int64_t before : {expiry.telemetry_before_ms, expiry.logs_before_ms})
      out += before == 0 ? "- " : std::to_string(20'000 - before / kDay) + "d ";
    out.back() = ']';
  }
  return out;
}

TEST(Retention, OneRoundForAllWhenNobodyAskedForMoreOrLess) {
  EXPECT_EQ(told(plan_expiry({}, {}, kNow)), "[30d 14d]");
  EXPECT_EQ(told(plan_expiry({{"a", {}}, {"b", {}}}, {}, kNow)), "[30d 14d]");
}

TEST(Retention, WhoKeepsLessIsTakenByTheRowsAndNobodyLosesWhatSomebodyKeeps) {
  EXPECT_EQ(told(plan_expiry({{"a", {30, 14}}, {"b", {7, 14}}, {"c", {7, 3}}}, {}, kNow)),
            "[30d 14d][b c 7d -][c - 3d]");
  EXPECT_EQ(told(plan_expiry({{"a", {30, 14}}, {"b", {90, 14}}, {"c", {30, 14}}}, {}, kNow)),
            "[90d 14d][a c 30d -]");
}

TEST(Retention, ThousandsGoInGroups) {
  std::vector<OrgRetention> all;
  for (int i = 0; i < 12'000; ++i) all.push_back({"o" + std::to_string(i), {1, 14}});
  const auto plan = plan_expiry(all, {}, kNow);
  ASSERT_EQ(plan.size(), 4u);
  EXPECT_EQ(plan[1].orgs.size() + plan[2].orgs.size() + plan[3].orgs.size(), 12'000u);
  EXPECT_EQ(plan[3].orgs.back(), "o11999");
}

}  // namespace
}  // namespace flock::services

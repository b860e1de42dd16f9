// SPDX-License-Identifier: Apache-2.0
#include "targets/api/log_follow.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace flock::targets::api {
namespace {

stores::LogRow row(std::int64_t number, std::int64_t received_ms = 1000) {
  stores::LogRow out;
  out.origin = {"o", "f", "d", "web"};
  out.epoch = 1;
  out.number = number;
  out.received_ms = received_ms;
  return out;
}

TEST(Delivered, KnowsALineByItsIdentity) {
  Delivered delivered;
  EXPECT_TRUE(delivered.add(row(1), 1));
  EXPECT_FALSE(delivered.add(row(1, 2000), 2)) << "the same line, whenever it came";
  stores::LogRow gap = row(1);
  gap.gap = 1;
  EXPECT_TRUE(delivered.add(gap, 2)) << "a gap is no line";
  stores::LogRow other = row(1);
  other.origin.service = "db";
  EXPECT_TRUE(delivered.add(other, 3));
}

TEST(Delivered, ForgetsWhatTheReaderHasNotSeen) {
  Delivered delivered;
  for (int i = 1; i <= 4; ++i) delivered.add(row(i), static_cast<std::uint64_t>(i));
  delivered.rewind(2);
  EXPECT_FALSE(delivered.add(row(1), 1));
  EXPECT_FALSE(delivered.add(row(2), 1));
  EXPECT_TRUE(delivered.add(row(3), 1));
  EXPECT_TRUE(delivered.add(row(4), 2));
}

TEST(Delivered, TrimsWhatIsOld) {
  Delivered delivered;
  delivered.add(row(1, 1000), 1);
  delivered.add(row(2, 5000), 2);
  delivered.trim(2000);
  EXPECT_TRUE(delivered.add(row(1, 1000), 3));
  EXPECT_FALSE(delivered.add(row(2, 5000), 3));
}

TEST(Follows, AreResumedByAnIdOfTheirs) {
  Follows follows;
  follows.make("a", 1000)->delivered.add(row(1), 1);
  const Follows::Place place{"a", 1, 5000};
  EXPECT_EQ(Follows::id_of(place), "a.1.5000");
  const Follows::Place parsed = Follows::parse("a.1.5000");
  EXPECT_EQ(parsed.name, "a");
  EXPECT_EQ(parsed.number, 1u);
  EXPECT_EQ(parsed.received_ms, 5000);
  const auto resumed = follows.resume(parsed, "b", 2000);
  ASSERT_NE(resumed, nullptr);
  EXPECT_FALSE(resumed->delivered.add(row(1), 1));
  EXPECT_EQ(follows.resume(Follows::parse("x.1.5000"), "c", 2000), nullptr);
  for (const char* wrong :
       {"", "a", "a.1", "a.1.", "a..1", "a.1.2.3", "a.-1.2", "a.1.-2", "a.99999999999999999999.1"})
    EXPECT_THROW(Follows::parse(wrong), Error) << wrong;
}

TEST(Follows, AreForgottenTwoMinutesAfterTheirReaderWent) {
  Follows follows;
  const auto open = follows.make("open", 1000);
  follows.make("gone", 1000);
  follows.make("later", 1000 + 121'000);
  EXPECT_NE(follows.resume({"open", 0, 0}, "b", 122'000), nullptr) << "still read";
  EXPECT_EQ(follows.resume({"gone", 0, 0}, "c", 122'000), nullptr);
}

}  // namespace
}  // namespace flock::targets::api

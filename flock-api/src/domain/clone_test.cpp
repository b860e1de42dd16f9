// SPDX-License-Identifier: Apache-2.0
#include "domain/clone.h"

#include <gtest/gtest.h>

#include <vector>

namespace flock::domain {
namespace {

using Verdicts = std::vector<bool>;

// One message a second, each written when it was sent.
Verdicts judge(const std::vector<std::string>& boots) {
  BootHistory history;
  Verdicts out;
  std::int64_t at = 0;
  for (const std::string& boot : boots) out.push_back(suspect_clone(history, boot, at += 1000));
  return out;
}

TEST(Clone, IsNoRestart) { EXPECT_EQ(judge({"a", "a", "b", "b", "c"}), Verdicts(5, false)); }

TEST(Clone, IsABootThatComesBack) {
  EXPECT_EQ(judge({"a", "b", "a"}), (Verdicts{false, false, true}));
  EXPECT_EQ(judge({"a", "b", "a", "b", "a"}), (Verdicts{false, false, true, true, true}));
}

TEST(Clone, MayBeOneOfThreeMachines) {
  EXPECT_EQ(judge({"a", "b", "c", "a"}), (Verdicts{false, false, false, true}));
}

TEST(Clone, SeesThroughRestartsOfTheOther) {
  EXPECT_EQ(judge({"a", "b", "a", "c", "a"}), (Verdicts{false, false, true, false, true}));
}

TEST(Clone, IsNotAMessageThatWasLate) {
  BootHistory history;
  EXPECT_FALSE(suspect_clone(history, "a", 1000));
  EXPECT_FALSE(suspect_clone(history, "b", 9000));
  EXPECT_FALSE(suspect_clone(history, "a", 2000)) << "written before the restart";
  EXPECT_FALSE(suspect_clone(history, "b", 9500)) << "and so this is no second change";
  EXPECT_TRUE(suspect_clone(history, "a", 9600));
}

TEST(Clone, IsNotSaidByWhoNamesNoBoot) {
  EXPECT_EQ(judge({"a", "", "a", "", "b", ""}), Verdicts(6, false));
}

TEST(Clone, RemembersLittle) {
  BootHistory history;
  for (int i = 0; i < 1000; ++i) suspect_clone(history, std::to_string(i), i);
  EXPECT_LE(history.boots.size(), 4u);
}

}  // namespace
}  // namespace flock::domain

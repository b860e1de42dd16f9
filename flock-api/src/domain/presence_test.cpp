// SPDX-License-Identifier: Apache-2.0
#include "domain/presence.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace flock::domain {
namespace {

TEST(Presence, ComesAndGoesOnceForEachReason) {
  Presence p;
  EXPECT_TRUE(take_sign(p, Sign::kHello, 11));
  EXPECT_TRUE(p.online);
  EXPECT_FALSE(take_sign(p, Sign::kReport, 12));
  EXPECT_TRUE(take_sign(p, Sign::kGoodbye, 13));
  EXPECT_FALSE(p.online);
  EXPECT_FALSE(take_sign(p, Sign::kGoodbye, 13));
  EXPECT_TRUE(take_sign(p, Sign::kReport, 14));
  EXPECT_EQ(reason_of(Sign::kGoodbye), "clean_stop");
  EXPECT_EQ(reason_of(Sign::kLost), "connection_lost");
  EXPECT_EQ(reason_of(Sign::kHello), "connected");
}

// The will of a connection is numbered before its hello: 10 < 11, then 20 < 21.
TEST(Presence, ALateWillOfAnEarlierConnectionTurnsNothingOff) {
  Presence p;
  take_sign(p, Sign::kHello, 11);
  take_sign(p, Sign::kHello, 21);
  EXPECT_FALSE(take_sign(p, Sign::kLost, 10));
  EXPECT_TRUE(p.online);
  EXPECT_TRUE(take_sign(p, Sign::kLost, 20));
  EXPECT_FALSE(p.online);
}

TEST(Presence, WhatWasSentBeforeTheDeviceWentDoesNotBringItBack) {
  Presence p;
  take_sign(p, Sign::kHello, 11);
  take_sign(p, Sign::kGoodbye, 15);
  EXPECT_FALSE(take_sign(p, Sign::kReport, 14));
  EXPECT_FALSE(take_sign(p, Sign::kHello, 11));
  EXPECT_FALSE(p.online);
  EXPECT_TRUE(take_sign(p, Sign::kHello, 21));
  EXPECT_FALSE(take_sign(p, Sign::kGoodbye, 15));
  EXPECT_TRUE(p.online);
}

// Two connections with clean ends, in any order and with repetitions: the end is right.
TEST(Presence, EndsRightInAnyOrder) {
  struct Heard {
    Sign sign;
    std::int64_t seq;
  };
  std::vector<Heard> all = {{Sign::kHello, 11}, {Sign::kReport, 12}, {Sign::kGoodbye, 13},
                            {Sign::kHello, 21}, {Sign::kReport, 22}, {Sign::kGoodbye, 13},
                            {Sign::kHello, 11}};
  std::mt19937 random(7);
  for (int i = 0; i < 2000; ++i) {
    std::ranges::shuffle(all, random);
    Presence p;
    for (const Heard& heard : all) take_sign(p, heard.sign, heard.seq);
    EXPECT_TRUE(p.online);
  }
}

TEST(Presence, SilenceIsCountedInKeepAlives) {
  EXPECT_EQ(silent_after(Duration(0)), Duration(180'000));
  EXPECT_EQ(silent_after(Duration(5)), Duration(180'000));
  EXPECT_EQ(silent_after(Duration(3'600'000)), Duration(3 * 3'600'000));
  EXPECT_EQ(silent_after(Duration(INT64_MAX)), Duration(3 * 86'400'000LL));
}

}  // namespace
}  // namespace flock::domain

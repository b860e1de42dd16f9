// SPDX-License-Identifier: Apache-2.0
#include "domain/trial.h"

#include <gtest/gtest.h>

namespace flock::agent {
namespace {

// A release that was switched to a second ago, and what is seen of it.
struct OnTrial {
  OnTrial() {
    state.set_version(2);
    plan.complete = plan.settled = true;
    plan.phase = ReportedState::SOAKING;
    trial.version = 2;
    trial.had_contact = true;
    trial.since = trial.watched = trial.contact_at = start;
    contact = {true, start};
  }
  // "" while it is kept.
  std::string verdict(Duration after) {
    const SteadyPoint settled = plan.settled ? start : SteadyPoint();
    const auto failure = judge(trial, state, plan, contact, settled, limits, start + after);
    return failure ? failure->code + ": " + failure->error : "";
  }
  void fail(const std::string& code, bool transient = false) {
    plan.settled = false;
    plan.phase = ReportedState::FAILED;
    plan.error_code = code;
    plan.error = "web: " + code;
    plan.transient = transient;
  }

  const SteadyPoint start{std::chrono::hours(1)};
  DesiredState state;
  Plan plan;
  Trial trial;
  Contact contact;
  TrialLimits limits;
};

TEST(Trial, KeepsWhatRunsAndIsHeard) {
  OnTrial one;
  for (const int minutes : {0, 10, 1000})
    EXPECT_EQ(one.verdict(std::chrono::minutes(minutes)), "") << minutes;
}

TEST(Trial, TakesBackWhatFails) {
  OnTrial one;
  one.fail("exited");
  EXPECT_EQ(one.verdict(Duration(1'000)), "exited: web: exited");
}

TEST(Trial, DoesNotBlameTheReleaseForARuntimeThatIsAway) {
  OnTrial one;
  one.fail("start_failed", true);
  EXPECT_EQ(one.verdict(Duration(300'000)), "");
}

TEST(Trial, WaitsForHealthAsLongAsTheReleaseMayTake) {
  OnTrial one;
  one.plan.settled = false;
  one.plan.phase = ReportedState::STARTING;
  one.plan.waits_for = "web";
  EXPECT_EQ(one.verdict(Duration(599'000)), "");
  EXPECT_EQ(one.verdict(Duration(600'000)),
            "not_healthy_in_time: web did not run and become healthy within 10m");
  one.state.set_start_timeout_ms(30'000);
  EXPECT_EQ(one.verdict(Duration(29'000)), "");
  EXPECT_EQ(one.verdict(Duration(30'000)),
            "not_healthy_in_time: web did not run and become healthy within 30s");
  one.state.clear_start_timeout_ms();
  one.limits.start = Duration(0);
  EXPECT_EQ(one.verdict(Duration(86'400'000)), "");
}

TEST(Trial, OneThatIsHealthyNowAndThenHasItsSoakOnTop) {
  OnTrial one;
  one.state.set_start_timeout_ms(30'000);
  one.state.set_soak_ms(60'000);
  EXPECT_EQ(one.verdict(Duration(29'000)), "");
  one.plan.settled = false;
  one.plan.phase = ReportedState::STARTING;
  EXPECT_EQ(one.verdict(Duration(89'000)), "");
  EXPECT_NE(one.verdict(Duration(90'000)), "");
}

TEST(Trial, GivesAFlockdThatWasStartedAgainTimeToLook) {
  OnTrial one;
  one.plan.settled = false;
  one.plan.phase = ReportedState::STARTING;
  one.trial.watched = one.start + Duration(700'000);
  EXPECT_EQ(one.verdict(Duration(701'000)), "");
  EXPECT_NE(one.verdict(Duration(715'000)), "");
}

TEST(Trial, TakesBackWhatCutsTheDeviceOff) {
  OnTrial one;
  EXPECT_EQ(one.verdict(Duration(1'000)), "");
  one.contact.there = false;
  EXPECT_EQ(one.verdict(Duration(300'000)), "");
  EXPECT_EQ(one.verdict(Duration(301'000)),
            "lost_contact: the server could not be reached for 5m after the switch, although it "
            "could be before");
  one.contact = {true, one.start + Duration(301'000)};  // it came back at the last moment
  EXPECT_EQ(one.verdict(Duration(301'000)), "");
  one.contact.there = false;
  EXPECT_EQ(one.verdict(Duration(600'000)), "");
  one.limits.contact = Duration(0);
  EXPECT_EQ(one.verdict(Duration(9'000'000)), "");
}

TEST(Trial, ContactFromBeforeTheReleaseRanProvesNothing) {
  OnTrial one;
  one.contact.heard = one.start - Duration(1);
  EXPECT_FALSE(in_contact(one.trial, one.contact, one.start));
  EXPECT_NE(one.verdict(Duration(300'000)), "");
  one.contact.heard = one.start;
  EXPECT_TRUE(in_contact(one.trial, one.contact, one.start));
}

TEST(Trial, ADeviceThatHadNoContactNeedsNone) {
  OnTrial one;
  one.trial.had_contact = false;
  one.contact = {};
  EXPECT_TRUE(in_contact(one.trial, one.contact, one.start));
  EXPECT_EQ(one.verdict(Duration(9'000'000)), "");
}

TEST(Trial, WhatRunsWhileItsSuccessorIsDownloadedMayNotCutTheDeviceOffEither) {
  OnTrial one;
  one.contact.there = false;
  EXPECT_FALSE(judge_contact(one.trial, one.contact, one.limits, one.start + Duration(299'000)));
  EXPECT_TRUE(judge_contact(one.trial, one.contact, one.limits, one.start + Duration(300'000)));
}

TEST(Trial, TakesBackWhatMakesTheMachineStartAgain) {
  OnTrial one;
  one.trial.boots = 2;
  EXPECT_EQ(one.verdict(Duration(1'000)), "");
  one.trial.boots = 3;
  EXPECT_EQ(one.verdict(Duration(1'000)),
            "restarts: the machine started again 3 times before the release was confirmed");
}

}  // namespace
}  // namespace flock::agent

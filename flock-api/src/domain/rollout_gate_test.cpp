// SPDX-License-Identifier: Apache-2.0
// Gates that look elsewhere: what a kept check is worth, and when it is waited for.
#include "domain/rollout_gate.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "domain/rollout_decide.h"

namespace flock::domain {
namespace {

Gate load_gate() {
  return {.limit = 80,
          .sample = 3,
          .kind = GateKind::kMetric,
          .interval = Duration(30'000),
          .metric = "load_1m",
          .aggregate = Aggregate::kP95};
}
Check measured(std::int64_t at_ms, double value, std::int64_t sample = 3) {
  return {.at_ms = at_ms, .value = value, .sample = sample};
}

TEST(GateElsewhere, AValueIsHeldAgainstItsLimit) {
  Gate gate = load_gate();
  GateView view = look(gate, measured(1000, 81.25), 0, {}, 2000);
  EXPECT_EQ(view.result, GateResult::kFail);
  EXPECT_EQ(view.since_ms, 1000);
  EXPECT_EQ(describe(gate, view), "load_1m (p95 of 10m) 81.25 of 3 devices, at most 80");
  EXPECT_EQ(look(gate, measured(1000, 80), 0, {}, 2000).result, GateResult::kPass);
  gate.at_least = true;
  gate.label = "load";
  view = look(gate, measured(1000, 79), 0, {}, 2000);
  EXPECT_EQ(view.result, GateResult::kFail);
  EXPECT_EQ(describe(gate, view), "load 79 of 3 devices, at least 80");
}

TEST(GateElsewhere, WithoutAnAnswerNothingIsKnown) {
  const Gate gate = load_gate();
  GateView view = look(gate, Check{}, 0, {}, 2000);
  EXPECT_EQ(view.result, GateResult::kUnknown);
  EXPECT_EQ(describe(gate, view), "load_1m (p95 of 10m) says nothing: it was not looked at yet");
  view = look(gate, measured(1000, 1, 2), 0, {}, 2000);
  EXPECT_EQ(view.result, GateResult::kUnknown);
  EXPECT_EQ(describe(gate, view), "load_1m (p95 of 10m) was measured on 2 of at least 3 devices");
  view = look(gate, {.at_ms = 1000, .reason = "ClickHouse is away"}, 0, {}, 2000);
  EXPECT_EQ(view.result, GateResult::kUnknown);
  EXPECT_EQ(describe(gate, view), "load_1m (p95 of 10m) says nothing: ClickHouse is away");
}

TEST(GateElsewhere, AStaleCheckSaysNothing) {
  const Gate gate = load_gate();
  EXPECT_EQ(longest_age(gate), Duration(80'000));
  GateView view = look(gate, measured(1000, 1), 0, {}, 81'000);
  EXPECT_EQ(view.result, GateResult::kPass);
  view = look(gate, measured(1000, 1), 0, view, 81'001);
  EXPECT_EQ(view.result, GateResult::kUnknown);
  EXPECT_EQ(describe(gate, view), "load_1m (p95 of 10m) says nothing: the last look was 80s ago");
}

TEST(GateElsewhere, WhatWasBeforeAnOperatorLetItGoOnCountsNoMore) {
  const Gate gate = load_gate();
  GateView view = look(gate, measured(1000, 90), 0, {}, 2000);
  EXPECT_EQ(view.result, GateResult::kFail);
  view = look(gate, measured(1000, 90), 1500, view, 2000);
  EXPECT_EQ(view.result, GateResult::kUnknown);
  EXPECT_EQ(view.looked_ms, 0);
  view = look(gate, measured(1500, 90), 1500, view, 2000);
  EXPECT_EQ(view.result, GateResult::kFail);
  EXPECT_EQ(view.row, 1);
}

// A check that is read again is no other check.
TEST(GateElsewhere, EqualChecksMustFollowEachOther) {
  Gate gate = load_gate();
  gate.in_a_row = 3;
  GateView view;
  for (const std::int64_t now : {2000, 9000, 20'000})
    view = look(gate, measured(1000, 90), 0, view, now);
  EXPECT_EQ(view.row, 1);
  EXPECT_EQ(view.last, GateResult::kFail);
  EXPECT_EQ(view.result, GateResult::kUnknown);
  view = look(gate, measured(31'000, 91), 0, view, 31'000);
  view = look(gate, measured(61'000, 92), 0, view, 61'000);
  EXPECT_EQ(view.result, GateResult::kFail);
  EXPECT_EQ(view.since_ms, 1000);
  view = look(gate, measured(91'000, 1), 0, view, 91'000);
  EXPECT_EQ(view.last, GateResult::kPass);
  EXPECT_EQ(view.result, GateResult::kUnknown);
}

TEST(GateElsewhere, AWebhookSaysItself) {
  const Gate gate{.kind = GateKind::kWebhook, .url = "https://qa.example.com:8443/check?x=1"};
  const Check fail{
      .at_ms = 1000, .sample = 1, .verdict = GateResult::kFail, .reason = "too many errors"};
  GateView view = look(gate, fail, 0, {}, 2000);
  EXPECT_EQ(view.result, GateResult::kFail);
  EXPECT_EQ(describe(gate, view), "qa.example.com:8443 says fail: too many errors");
  const Check away{.at_ms = 1000, .sample = 1, .reason = "it answered 503"};
  EXPECT_EQ(describe(gate, look(gate, away, 0, {}, 2000)),
            "qa.example.com:8443 says nothing: it answered 503");
}

TEST(GateElsewhere, AComparisonNeedsItsSampleAndSaysItsNumbers) {
  const Gate gate{.sample = 10, .kind = GateKind::kComparison};
  Evidence evidence;
  learn(evidence, kOthersToLearn, 0);
  for (int i = 0; i < 9; ++i) bet(evidence, true, 8, 0, gate.tolerance);
  GateView view = look(gate, conclude(gate, evidence, 1000), 0, {}, 1000);
  EXPECT_EQ(view.result, GateResult::kUnknown);
  EXPECT_EQ(describe(gate, view),
            "bad devices among the updated was measured on 9 of at least 10 devices");
  Evidence good = evidence;
  bet(evidence, true, 8, 0, gate.tolerance);
  view = look(gate, conclude(gate, evidence, 1000), 0, {}, 1000);
  EXPECT_EQ(view.result, GateResult::kFail);
  EXPECT_TRUE(
      describe(gate, view)
          .starts_with(
              "bad devices among the updated: 100 % of 10 devices; 0 % of 130 devices that are not "
              "updated; an alarm at p 0.01, now "))
      << describe(gate, view);
  good = {};
  for (int i = 0; i < 10; ++i) bet(good, false, 8, 0, gate.tolerance);
  EXPECT_EQ(look(gate, conclude(gate, good, 1000), 0, {}, 1000).result, GateResult::kPass);
}

TEST(GateElsewhere, FaultsSayWhere) {
  RolloutPlan plan;
  Gate bad = load_gate();
  bad.metric = "mood";
  bad.interval = Duration(100);
  bad.window = Duration(0);
  Gate of_service = load_gate();
  of_service.service = "web";
  Gate comparison{.kind = GateKind::kComparison, .alpha = 0, .tolerance = 0.6};
  plan.gates = {bad, of_service, comparison, load_gate(), load_gate()};
  std::vector<std::string> at;
  for (const PlanFault& fault : faults_of(plan)) at.push_back(fault.pointer);
  EXPECT_EQ(at,
            (std::vector<std::string>{"/gates/0/interval", "/gates/0/window", "/gates/0/metric",
                                      "/gates/1/metric", "/gates/2/alpha", "/gates/2/tolerance"}));
}

// A rollout of ten devices whose first stage is settled, with one gate that looks elsewhere.
struct Settled {
  RolloutPlan plan;
  RolloutProgress progress;
  RolloutSeen seen;
  Check check;

  Settled() {
    plan.stages = {{.share = 0.1}, {.share = 1}};
    plan.gates = {load_gate()};
    seen.now_ms = 1'000'000;
    seen.ends = stage_ends(plan, 10);
    seen.counts.total = 10;
    seen.counts.confirmed = seen.counts.stage_settled = 1;
    progress.settled_ms = seen.now_ms;
  }
  Decision ask() {
    seen.gates.resize(1);
    seen.gates[0] = look(plan.gates[0], check, progress.accepted_ms, seen.gates[0], seen.now_ms);
    const Decision decision = decide(plan, progress, seen);
    progress = carry_out(progress, decision, seen);
    return decision;
  }
};

// What was measured before the last device had settled says nothing about it.
TEST(RolloutDecide, TheEndOfAStageWaitsForALookElsewhere) {
  Settled rollout;
  rollout.check = measured(999'999, 1);
  EXPECT_EQ(rollout.ask().step, Step::kWait);
  EXPECT_EQ(rollout.progress.why, "stage 1 of 2 is done but for a look at load_1m (p95 of 10m)");
  rollout.check = measured(1'000'000, 1);
  EXPECT_EQ(rollout.ask().step, Step::kNextStage);
}

TEST(RolloutDecide, WhoNeverLooksIsNotWaitedForForEver) {
  Settled rollout;
  rollout.check = measured(999'999, 1);
  rollout.seen.now_ms += longest_age(load_gate()).count();
  EXPECT_EQ(rollout.ask().step, Step::kWait);
  rollout.seen.now_ms += 1;
  EXPECT_EQ(rollout.ask().step, Step::kPause);
  EXPECT_EQ(rollout.progress.why,
            "it cannot be judged: load_1m (p95 of 10m) says nothing: the last look was 80s ago");
  // It is looked at anew when somebody lets it go on.
  rollout.progress =
      obey(rollout.progress, Order::kResume, rollout.seen.counts, rollout.seen.now_ms);
  EXPECT_EQ(rollout.ask().step, Step::kSettle);
  EXPECT_EQ(rollout.ask().step, Step::kWait);
  rollout.check = measured(rollout.seen.now_ms, 1);
  EXPECT_EQ(rollout.ask().step, Step::kNextStage);
}

TEST(RolloutDecide, AGateElsewhereStopsAtAnyTimeUnlessItOnlyObserves) {
  Settled rollout;
  rollout.seen.counts.updating = 1;  // long before the end of the stage
  rollout.check = measured(1'000'000, 90);
  rollout.plan.gates[0].dry_run = true;
  EXPECT_NE(rollout.ask().step, Step::kEnd);
  rollout.plan.gates[0].dry_run = false;
  EXPECT_EQ(rollout.ask().step, Step::kEnd);
  EXPECT_EQ(rollout.progress.state, RolloutState::kFailed);
  EXPECT_EQ(rollout.progress.why, "load_1m (p95 of 10m) 90 of 3 devices, at most 80");
}

TEST(RolloutDecide, OneThatKnowsNothingIsAskedAgainBeforeItPauses) {
  Settled rollout;
  rollout.plan.gates[0].in_a_row = 2;
  rollout.check = {.at_ms = 1'000'000, .reason = "ClickHouse is away"};
  EXPECT_EQ(rollout.ask().step, Step::kWait);
  rollout.seen.now_ms += 30'000;
  rollout.check.at_ms = rollout.seen.now_ms;
  EXPECT_EQ(rollout.ask().step, Step::kPause);
  EXPECT_EQ(rollout.progress.why,
            "it cannot be judged: load_1m (p95 of 10m) says nothing: ClickHouse is away");
}

}  // namespace
}  // namespace flock::domain

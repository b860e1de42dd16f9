// SPDX-License-Identifier: Apache-2.0
#include "domain/rollout_decide.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace flock::domain {
namespace {

RolloutPlan canary() {
  RolloutPlan plan;
  plan.stages = {{.share = 0.1, .soak = Duration(60'000)}, {.share = 1}};
  return plan;
}

TEST(RolloutPlan, StagesAreRoundedUpAndTheLastIsAll) {
  RolloutPlan plan;
  plan.stages = {{.share = 0.05}, {.share = 0.1}, {.count = 7}, {.share = 0.5}, {.share = 1}};
  using Ends = std::vector<std::int64_t>;
  EXPECT_EQ(stage_ends(plan, 0), (Ends{0, 0, 0, 0, 0}));
  EXPECT_EQ(stage_ends(plan, 1), (Ends{1, 1, 1, 1, 1}));
  EXPECT_EQ(stage_ends(plan, 30), (Ends{2, 3, 7, 15, 30}));
  EXPECT_EQ(stage_ends(plan, 1'000'000), (Ends{50'000, 100'000, 100'000, 500'000, 1'000'000}));
}

TEST(RolloutPlan, FaultsSayWhere) {
  RolloutPlan plan;
  EXPECT_TRUE(faults_of(plan).empty());
  plan.stages = {{.share = 0.5}, {.share = 0.2}, {.share = 0}, {.count = -1}};
  plan.gates = {{.signal = Signal::kFailed, .limit = 1.5},
                {.signal = Signal::kFailed, .sample = 0, .in_a_row = 0}};
  plan.windows = {{.days = 0, .from = 60, .to = 60, .time_zone = "Oslo"}};
  plan.retries.times = 11;
  plan.limits.down = {"", 1};
  plan.max_failed_ratio = -1;
  std::vector<std::string> at;
  for (const PlanFault& fault : faults_of(plan)) at.push_back(fault.pointer);
  EXPECT_EQ(at, (std::vector<std::string>{
                    "/stages/1/percent", "/stages/2/percent", "/stages/2/percent",
                    "/stages/3/count", "/gates/0/limit", "/gates/1/sample", "/gates/1/in_a_row",
                    "/gates/1/signal", "/windows/0/days", "/windows/0/to", "/windows/0/time_zone",
                    "/retries", "/max_down_per/label", "/max_failed_ratio"}));
  plan.stages = {{.share = 0.5}};
  EXPECT_EQ(faults_of(plan).front().pointer, "/stages/0/percent");
  plan.stages.clear();
  EXPECT_EQ(faults_of(plan).front().pointer, "/stages");
}

TEST(RolloutGate, CountsLooksThatAreApart) {
  const Gate gate{.signal = Signal::kFailed, .limit = 0.1, .sample = 5, .in_a_row = 3};
  StageCounts counts;
  counts.confirmed = 3;
  counts.failed = 1;
  GateView view = look(gate, counts, 0, {}, 1000);
  EXPECT_EQ(view.result, GateResult::kUnknown);
  EXPECT_EQ(describe(gate, view), "failed was measured on 4 of at least 5 devices");
  counts.confirmed = 4;
  for (std::int64_t now : {2000, 3000, 4000}) view = look(gate, counts, 0, view, now);
  EXPECT_EQ(view.last, GateResult::kFail);
  EXPECT_EQ(view.row, 1);  // looks that are too near to each other are one
  view = look(gate, counts, 0, view, 7000);
  view = look(gate, counts, 0, view, 12'000);
  EXPECT_EQ(view.result, GateResult::kFail);
  EXPECT_EQ(view.since_ms, 2000);
  EXPECT_EQ(describe(gate, view), "failed 20 % of 5 devices, at most 10 %");
  view = look(gate, counts, 1, view, 13'000);  // what was forgiven counts no more
  EXPECT_EQ(view.last, GateResult::kUnknown);  // and is no sample either
  EXPECT_EQ(percent(0.1234), "12.3 %");
}

// A rollout of ten devices that is told what it sees.
struct Told {
  RolloutPlan plan = canary();
  RolloutProgress progress;
  RolloutSeen seen;

  Told() {
    seen.now_ms = 1'000'000;
    seen.ends = stage_ends(plan, 10);
    seen.counts.total = 10;
    seen.counts.waiting_online = 1;
  }
  Decision ask() {
    seen.gates.resize(plan.gates.size());
    for (std::size_t i = 0; i < plan.gates.size(); ++i)
      seen.gates[i] =
          look(plan.gates[i], seen.counts, progress.forgiven, seen.gates[i], seen.now_ms);
    return decide(plan, progress, seen);
  }
  Step go() {
    const Decision decision = ask();
    progress = carry_out(progress, decision, seen);
    return decision.step;
  }
};

TEST(RolloutDecide, GoesThroughItsStages) {
  Told told;
  EXPECT_EQ(told.go(), Step::kLetGo);
  EXPECT_EQ(told.progress.why, "1 device of stage 1 of 2 begin");
  told.seen.counts.waiting_online = 0;
  told.seen.counts.updating = 1;
  EXPECT_EQ(told.go(), Step::kWait);
  EXPECT_EQ(told.progress.why, "1 device is updating (0 confirmed, 0 failed)");
  told.seen.counts.updating = 0;
  told.seen.counts.confirmed = told.seen.counts.stage_settled = 1;
  EXPECT_EQ(told.go(), Step::kSettle);
  EXPECT_EQ(told.go(), Step::kWait);
  EXPECT_EQ(told.progress.why, "stage 1 of 2 is watched for 1m");
  told.seen.now_ms += 60'000;
  EXPECT_EQ(told.go(), Step::kNextStage);
  told.seen.counts.waiting_online = 9;
  told.seen.counts.stage_settled = 0;
  EXPECT_EQ(told.ask().count, 9);
  told.seen.counts.waiting_online = 0;
  told.seen.counts.confirmed = 8;
  told.seen.counts.stage_settled = 7;
  told.seen.counts.failed = 1;
  told.seen.counts.offline = told.seen.counts.stage_away = 1;
  EXPECT_EQ(told.go(), Step::kWait);
  EXPECT_EQ(told.progress.why, "1 device is offline (8 confirmed, 1 failed)");
  told.seen.now_ms += told.plan.offline_patience.count();
  EXPECT_EQ(told.go(), Step::kSettle);
  EXPECT_EQ(told.go(), Step::kEnd);
  EXPECT_EQ(told.progress.state, RolloutState::kCompleted);
  EXPECT_EQ(told.progress.why, "1 of 10 devices failed; 1 device is offline and will follow");
}

TEST(RolloutDecide, LimitsHoldBackAndPassOverWhoIsAway) {
  Told told;
  told.plan.limits = {.updating = 3, .per_minute = 4};
  told.progress.stage = 1;
  told.seen.counts.waiting_online = 6;
  told.seen.counts.waiting_offline = 2;
  told.seen.counts.confirmed = 1;
  told.seen.counts.updating = 1;
  EXPECT_EQ(told.ask().count, 2);
  told.seen.counts.began_lately = 3;
  EXPECT_EQ(told.ask().count, 1);
  told.seen.counts.began_lately = 4;
  EXPECT_EQ(told.ask().why, "1 device is updating, 6 wait for their turn (1 confirmed, 0 failed)");
}

TEST(RolloutDecide, WaitsForThoseThatAreDownWithTheSameLabel) {
  Told told;
  told.plan.limits.down = {"site", 1};
  told.progress.stage = 1;
  told.seen.counts.waiting_online = 0;
  told.seen.counts.waiting_held = 3;
  told.seen.counts.confirmed = told.seen.counts.stage_settled = 2;
  told.seen.now_ms += told.plan.offline_patience.count();
  EXPECT_EQ(told.go(), Step::kWait) << "whoever can begin is waited for as long as it takes";
  EXPECT_EQ(told.progress.why,
            "3 devices wait: at most 1 with the same site may be down at a time (2 confirmed, 0 "
            "failed)");
  told.seen.counts.updating = 1;
  EXPECT_EQ(told.ask().why,
            "1 device is updating, 3 wait: at most 1 with the same site may be down at a time (2 "
            "confirmed, 0 failed)");
  told.seen.counts.waiting_online = 2;
  EXPECT_EQ(told.ask().count, 2);
  told.seen.counts = {.total = 10, .failed = 1, .waiting_held = 1, .stage_settled = 1};
  EXPECT_EQ(told.ask().why,
            "1 device waits: at most 1 with the same site may be down at a time (0 confirmed, 1 "
            "failed)")
      << "not everybody has failed yet";
}

TEST(RolloutDecide, TheWayBackWaitsForThoseThatAreDownToo) {
  Told told;
  told.plan.limits.down = {"site", 2};
  told.progress.state = RolloutState::kRollingBack;
  told.progress.returning = true;
  told.seen.counts = {.total = 10, .to_return = 2, .return_held = 4};
  EXPECT_EQ(told.ask().count, 2);
  told.seen.counts.to_return = 0;
  told.seen.counts.returning = 2;
  EXPECT_EQ(told.ask().why,
            "2 devices are on the way back, 4 to follow: at most 2 with the same site may be down "
            "at a time");
  told.seen.counts.returning = 0;
  told.seen.counts.returning_offline = 2;
  told.seen.now_ms += told.plan.offline_patience.count();
  EXPECT_EQ(told.go(), Step::kWait);
  told.seen.counts.return_held = 0;
  EXPECT_EQ(told.go(), Step::kEnd);
}

TEST(RolloutDecide, FailuresEndPauseOrTakeBack) {
  const std::pair<OnFailure, RolloutState> cases[] = {
      {OnFailure::kStop, RolloutState::kFailed},
      {OnFailure::kPause, RolloutState::kPaused},
      {OnFailure::kRollBack, RolloutState::kRollingBack}};
  for (const auto& [policy, state] : cases) {
    Told told;
    told.plan.on_failure = policy;
    told.seen.counts.waiting_online = 0;
    told.seen.counts.failed = told.seen.counts.stage_settled = 1;
    told.seen.first_failure = "image_pull_failed: no";
    told.go();
    EXPECT_EQ(told.progress.state, state);
    EXPECT_EQ(told.progress.why, "1 of 1 device failed: image_pull_failed: no");
  }
}

TEST(RolloutDecide, WaitsForMaintenanceWindows) {
  Told told;
  told.plan.windows = {{.from = 60, .to = 120}};
  told.seen.counts.waiting_online = 0;
  told.seen.counts.waiting_closed = 1;
  told.seen.next_opening_ms = 1'700'000'000'000;
  told.seen.now_ms += told.plan.offline_patience.count();
  EXPECT_EQ(told.go(), Step::kWait) << "no patience is too short for a window";
  EXPECT_EQ(told.progress.why,
            "1 device waits for its maintenance window; the next opens 2023-11-14T22:13:20.000Z "
            "(0 confirmed, 0 failed)");
  told.seen.counts.waiting_closed = 0;
  told.seen.counts.waiting_online = 1;
  EXPECT_EQ(told.go(), Step::kLetGo);
}

TEST(RolloutDecide, GivesFailuresAnotherTryBeforeItJudgesThem) {
  Told told;
  told.plan.retries = {2, Duration(60'000)};
  told.seen.counts.waiting_online = 0;
  told.seen.counts.failed = told.seen.counts.stage_settled = told.seen.counts.retry_later = 1;
  EXPECT_EQ(told.go(), Step::kWait);
  EXPECT_EQ(told.progress.why, "1 device that failed is tried again in 1m (0 confirmed, 1 failed)");
  told.seen.counts.retry_later = 0;
  told.seen.counts.to_retry = 1;
  EXPECT_EQ(told.ask().count, 1);
  EXPECT_EQ(told.go(), Step::kRetry);
  told.seen.counts.to_retry = 0;  // the last try is over
  EXPECT_EQ(told.go(), Step::kEnd);
  EXPECT_EQ(told.progress.state, RolloutState::kFailed);
  told.progress = obey(told.progress, Order::kRetry, told.seen.counts, told.seen.now_ms);
  EXPECT_EQ(told.progress.state, RolloutState::kRunning);
  told.seen.counts.failed = 0;
  EXPECT_THROW(obey(told.progress, Order::kRetry, told.seen.counts, told.seen.now_ms), Error);
}

TEST(RolloutDecide, SkipsTheRestOfASoakButNotTheGates) {
  Told told;
  told.plan.gates = {{.signal = Signal::kConfirmed, .limit = 0.9, .sample = 5}};
  told.seen.counts.waiting_online = 0;
  told.seen.counts.confirmed = told.seen.counts.stage_settled = 1;
  EXPECT_EQ(told.go(), Step::kSettle);
  EXPECT_EQ(told.go(), Step::kWait);
  told.progress = obey(told.progress, Order::kSkip, told.seen.counts, told.seen.now_ms);
  EXPECT_EQ(told.go(), Step::kPause) << "too few to be judged";
}

TEST(RolloutDecide, TakesBackAndSaysWhy) {
  Told told;
  told.plan.on_failure = OnFailure::kRollBack;
  told.seen.counts.waiting_online = 0;
  told.seen.counts.failed = told.seen.counts.to_return = 1;
  told.go();
  EXPECT_EQ(told.go(), Step::kReturn);
  told.seen.counts.to_return = 0;
  told.seen.counts.returning = 1;
  EXPECT_EQ(told.go(), Step::kWait);
  told.seen.counts.returning = 0;
  told.seen.counts.stuck = 1;
  EXPECT_EQ(told.go(), Step::kPause);
  EXPECT_EQ(told.progress.why, "1 device could not go back");
  told.progress = obey(told.progress, Order::kResume, told.seen.counts, told.seen.now_ms);
  EXPECT_EQ(told.go(), Step::kEnd);
  EXPECT_EQ(told.progress.state, RolloutState::kRolledBack);
  EXPECT_EQ(told.progress.why, "1 of 1 device failed");
}

TEST(RolloutDecide, AGateThatCannotBeJudgedPauses) {
  Told told;
  told.plan.gates = {{.signal = Signal::kConfirmed, .limit = 0.9, .sample = 5}};
  told.seen.counts.waiting_online = 0;
  told.seen.counts.confirmed = told.seen.counts.stage_settled = 1;
  told.go();
  told.seen.now_ms += 60'000;
  EXPECT_EQ(told.go(), Step::kPause);
  EXPECT_EQ(told.progress.why,
            "it cannot be judged: confirmed was measured on 1 of at least 5 devices");
  told.progress = obey(told.progress, Order::kAdvance, told.seen.counts, told.seen.now_ms);
  EXPECT_EQ(told.go(), Step::kNextStage);
}

TEST(RolloutDecide, AStageByHandWaitsForIt) {
  Told told;
  told.plan.stages[0].by_hand = true;
  told.seen.counts.waiting_online = 0;
  told.seen.counts.confirmed = told.seen.counts.stage_settled = 1;
  told.go();
  told.seen.now_ms += 60'000;
  EXPECT_EQ(told.go(), Step::kWait);
  EXPECT_EQ(told.progress.why, "stage 1 of 2 is done; an operator lets the next one begin");
  told.progress = obey(told.progress, Order::kAdvance, told.seen.counts, told.seen.now_ms);
  EXPECT_EQ(told.go(), Step::kNextStage);
  EXPECT_FALSE(told.progress.go_on);
}

TEST(RolloutDecide, BeginsWhenItIsApprovedAndItsTimeHasCome) {
  Told told;
  told.plan.approval = true;
  told.plan.start_at_ms = told.seen.now_ms + 1000;
  told.progress.state = RolloutState::kAwaitingApproval;
  EXPECT_EQ(told.go(), Step::kWait);
  told.progress = obey(told.progress, Order::kApprove, {}, told.seen.now_ms);
  EXPECT_EQ(told.go(), Step::kWait);
  EXPECT_EQ(told.progress.why, "it begins at the time that was set for it");
  told.seen.now_ms += 1000;
  EXPECT_EQ(told.go(), Step::kBegin);
  EXPECT_EQ(told.progress.state, RolloutState::kRunning);
}

TEST(RolloutDecide, OrdersThatMakeNoSenseAreRefused) {
  using enum RolloutState;
  const std::pair<Order, std::vector<RolloutState>> taken[] = {
      {Order::kApprove, {kAwaitingApproval}},
      {Order::kPause, {kRunning, kRollingBack}},
      {Order::kResume, {kPaused}},
      {Order::kAdvance, {kRunning, kPaused}},
      {Order::kFinish, {kRunning, kPaused}},
      {Order::kAbort, {kAwaitingApproval, kScheduled, kRunning, kPaused, kRollingBack}},
      {Order::kRollBack, {kRunning, kPaused, kCompleted, kFailed, kAborted}},
  };
  for (const auto& [order, states] : taken) {
    for (int i = 0; i <= static_cast<int>(kSuperseded); ++i) {
      RolloutProgress progress;
      progress.state = static_cast<RolloutState>(i);
      progress.returning = progress.state == kRollingBack || progress.state == kRolledBack;
      const bool wanted = std::find(states.begin(), states.end(), progress.state) != states.end();
      bool done = true;
      try {
        obey(progress, order, {}, 1);
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Code::kConflict);
        EXPECT_FALSE(error.hint().empty());
        done = false;
      }
      EXPECT_EQ(done, wanted) << name_of(order) << " " << name_of(progress.state);
      EXPECT_EQ(rollout_state_named(name_of(progress.state)), progress.state);
    }
  }
  EXPECT_THROW(rollout_state_named("running"), Error);
}

}  // namespace
}  // namespace flock::domain

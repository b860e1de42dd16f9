// SPDX-License-Identifier: Apache-2.0
#include "domain/rollout_decide.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/time.h"

namespace flock::domain {
namespace {

using State = RolloutState;

constexpr std::array<std::pair<State, std::string_view>, 10> kStates{{
    {State::kAwaitingApproval, "AWAITING_APPROVAL"},
    {State::kScheduled, "SCHEDULED"},
    {State::kRunning, "RUNNING"},
    {State::kPaused, "PAUSED"},
    {State::kRollingBack, "ROLLING_BACK"},
    {State::kCompleted, "COMPLETED"},
    {State::kFailed, "FAILED"},
    {State::kAborted, "ABORTED"},
    {State::kRolledBack, "ROLLED_BACK"},
    {State::kSuperseded, "SUPERSEDED"},
}};

std::string devices(std::int64_t count) {
  return std::to_string(count) + (count == 1 ? " device" : " devices");
}
std::string are(std::int64_t count) { return count == 1 ? " is " : " are "; }

Decision wait(std::string why) { return {Step::kWait, 0, State::kCompleted, std::move(why)}; }
Decision end(State state, std::string why) { return {Step::kEnd, 0, state, std::move(why)}; }
Decision take(Step step, std::string why, std::int64_t count = 0) {
  return {step, count, State::kCompleted, std::move(why)};
}

// One look at a rollout: the rules, in the order in which they are asked.
class Look {
 public:
  Look(const RolloutPlan& plan, const RolloutProgress& progress, const RolloutSeen& seen)
      : plan_(plan), progress_(progress), seen_(seen), counts_(seen.counts) {}

  Decision before_begin() const {
    if (plan_.approval && !progress_.approved)
      return wait("it waits for the approval of a second person");
    if (seen_.now_ms < plan_.start_at_ms) return wait("it begins at the time that was set for it");
    return take(Step::kBegin, "it begins");
  }

  bool superseded() const { return counts_.total > 0 && counts_.superseded == counts_.total; }

  Decision running() const {
    if (counts_.total == 0) return end(State::kCompleted, "there is no device");
    if (counts_.to_retry > 0)
      return take(Step::kRetry, devices(counts_.to_retry) + " that failed get another try",
                  counts_.to_retry);
    if (!progress_.finish) {
      if (std::string cause = failure(); !cause.empty()) return failed(std::move(cause));
    }
    if (progress_.finish && !is_last())
      return take(Step::kNextStage, "an operator let all devices begin");
    if (progress_.go_on && !is_last())
      return take(Step::kNextStage,
                  "an operator let " + stage_text(progress_.stage + 1) + " begin");
    if (const std::int64_t room = std::min(ready(), room_beside(counts_.updating, true)); room > 0)
      return take(Step::kLetGo, devices(room) + " of " + stage_text() + " begin", room);
    if (std::string open = not_settled(); !open.empty()) {
      return progress_.settled_ms != 0 ? take(Step::kUnsettle, std::move(open))
                                       : wait(std::move(open));
    }
    if (progress_.settled_ms == 0)
      return take(Step::kSettle, "every device of " + stage_text() + " that is there has settled");
    return after_soak();
  }

  Decision taking_back() const {
    if (counts_.stuck > progress_.forgiven) {
      return take(Step::kPause, devices(counts_.stuck) + " could not go back" +
                                    (seen_.first_failure.empty() ? "" : ": ") +
                                    seen_.first_failure);
    }
    if (const std::int64_t room =
            std::min(counts_.to_return, room_beside(counts_.returning, false));
        room > 0)
      return take(Step::kReturn, devices(room) + " go back to what they ran before", room);
    const std::int64_t to_follow = counts_.to_return + counts_.return_held;
    if (to_follow + counts_.returning > 0) {
      return wait(devices(counts_.returning) + are(counts_.returning) + "on the way back, " +
                  std::to_string(to_follow) + " to follow" +
                  (counts_.return_held > 0 ? ": " + down_limit() : ""));
    }
    if (counts_.returning_offline > 0 && !patience_is_over()) {
      return wait(devices(counts_.returning_offline) + " that went offline" +
                  are(counts_.returning_offline) + "waited for");
    }
    return end(State::kRolledBack, progress_.cause);
  }

 private:
  std::string stage_text() const { return stage_text(progress_.stage); }
  std::string stage_text(std::int64_t stage) const {
    return "stage " + std::to_string(stage + 1) + " of " + std::to_string(plan_.stages.size());
  }
  const Stage& stage() const { return plan_.stages.at(static_cast<std::size_t>(progress_.stage)); }
  bool is_last() const {
    return progress_.stage + 1 >= static_cast<std::int64_t>(plan_.stages.size());
  }
  bool patience_is_over() const { return domain::patience_is_over(plan_, progress_, seen_.now_ms); }
  std::int64_t ready() const {
    return counts_.waiting_online + (plan_.only_online() ? 0 : counts_.waiting_offline);
  }
  std::int64_t away() const {
    return counts_.offline + (plan_.only_online() ? counts_.waiting_offline : 0);
  }
  std::int64_t room_beside(std::int64_t busy, bool by_the_minute) const {
    std::int64_t room = std::numeric_limits<std::int64_t>::max();
    if (plan_.limits.updating > 0) room = plan_.limits.updating - busy;
    if (by_the_minute && plan_.limits.per_minute > 0)
      room = std::min(room, plan_.limits.per_minute - counts_.began_lately);
    return std::max<std::int64_t>(room, 0);
  }
  std::string down_limit() const {
    return "at most " + std::to_string(plan_.limits.down.count) + " with the same " +
           plan_.limits.down.label + " may be down at a time";
  }
  std::int64_t failures() const {
    return std::max<std::int64_t>(counts_.failed - counts_.retry_later - progress_.forgiven, 0);
  }

  std::string failure_text(std::int64_t failed, std::int64_t judged) const {
    return std::to_string(failed) + " of " + devices(judged) + " failed" +
           (seen_.first_failure.empty() ? "" : ": ") + seen_.first_failure;
  }

  // What speaks against going on at any time, or "".
  std::string failure() const {
    const std::int64_t judged = counts_.reached() + counts_.waiting();
    if (failures() > 0) {
      const double ratio = static_cast<double>(failures()) / static_cast<double>(judged);
      const bool nobody_else =
          counts_.confirmed == 0 &&
          counts_.updating + ready() + counts_.waiting_closed + counts_.waiting_held == 0 &&
          (away() == 0 || patience_is_over());
      if (ratio > plan_.max_failed_ratio || nobody_else) return failure_text(failures(), judged);
    }
    return failing_gate(false);
  }

  // The first gate that failed, in words, or "". Those on confirmations and presence are judged at
  // the end of a stage only: before it they say how far it is, not how well it goes.
  std::string failing_gate(bool at_the_end) const {
    for (std::size_t i = 0; i < plan_.gates.size(); ++i) {
      const Gate& gate = plan_.gates[i];
      if (gate.dry_run || is_judged_at_the_end(gate) != at_the_end) continue;
      if (seen_.gates.at(i).result == GateResult::kFail) return describe(gate, seen_.gates[i]);
    }
    return "";
  }

  Decision failed(std::string cause) const {
    switch (plan_.on_failure) {
      case OnFailure::kPause:
        return take(Step::kPause, std::move(cause));
      case OnFailure::kRollBack:
        return take(Step::kRollBack, std::move(cause));
      case OnFailure::kStop:
        break;
    }
    return end(State::kFailed, std::move(cause));
  }

  // What the open stage waits for, or "".
  std::string not_settled() const {
    const std::string so_far = " (" + std::to_string(counts_.confirmed) + " confirmed, " +
                               std::to_string(counts_.failed) + " failed)";
    if (counts_.updating > 0 || ready() > 0) {
      std::string text = devices(counts_.updating) + are(counts_.updating) + "updating";
      if (ready() > 0) text += ", " + std::to_string(ready()) + " wait for their turn";
      if (counts_.waiting_held > 0)
        text += ", " + std::to_string(counts_.waiting_held) + " wait: " + down_limit();
      return text + so_far;
    }
    if (counts_.waiting_held > 0)
      return devices(counts_.waiting_held) + (counts_.waiting_held == 1 ? " waits: " : " wait: ") +
             down_limit() + so_far;
    if (counts_.waiting_closed > 0)
      return devices(counts_.waiting_closed) + (counts_.waiting_closed == 1 ? " waits" : " wait") +
             " for " + (counts_.waiting_closed == 1 ? "its" : "their") +
             " maintenance window; the next opens " +
             to_rfc3339(from_unix_ms(seen_.next_opening_ms)) + so_far;
    if (counts_.retry_later > 0)
      return devices(counts_.retry_later) + " that failed" + are(counts_.retry_later) +
             "tried again in " + to_string(plan_.retries.after) + so_far;
    if (patience_is_over()) return "";
    // The last stage is everybody's; of the others somebody's word is enough.
    const bool need = is_last() ? away() > 0 : counts_.stage_away > 0 && counts_.stage_settled == 0;
    if (!need) return "";
    return devices(away()) + are(away()) + "offline" + so_far;
  }

  Decision after_soak() const {
    const bool skip = progress_.go_on || progress_.finish;
    if (!skip) {
      if (!progress_.skip_soak && seen_.now_ms - progress_.settled_ms < stage().soak.count())
        return wait(stage_text() + " is watched for " + to_string(stage().soak));
      if (auto check = check_to_come()) return *check;
      if (std::string cause = failing_gate(true); !cause.empty()) return failed(std::move(cause));
      if (auto unknown = unknown_gate()) return *unknown;
    }
    if (is_last()) return end(State::kCompleted, completed_text());
    if (stage().by_hand && !skip)
      return wait(stage_text() + " is done; an operator lets the next one begin");
    return take(Step::kNextStage, stage_text() + " is done");
  }

  // A gate that looks elsewhere must have looked since the stage's devices settled. Whoever looks
  // is waited for as long as a check may be old; then it cannot be judged.
  std::optional<Decision> check_to_come() const {
    const std::int64_t soak = progress_.skip_soak ? 0 : stage().soak.count();
    const std::int64_t waited = seen_.now_ms - progress_.settled_ms - soak;
    for (std::size_t i = 0; i < plan_.gates.size(); ++i) {
      const Gate& gate = plan_.gates[i];
      if (gate.dry_run || !gate.is_elsewhere()) continue;
      if (seen_.gates.at(i).looked_ms >= progress_.settled_ms) continue;
      if (waited <= longest_age(gate).count())
        return wait(stage_text() + " is done but for a look at " + title(gate));
    }
    return std::nullopt;
  }

  // A gate that cannot be judged stops the rollout until somebody looks, unless it may yet be.
  std::optional<Decision> unknown_gate() const {
    for (std::size_t i = 0; i < plan_.gates.size(); ++i) {
      const Gate& gate = plan_.gates[i];
      const GateView& view = seen_.gates.at(i);
      if (gate.dry_run || view.result != GateResult::kUnknown) continue;
      const bool again = gate.is_elsewhere() && view.looked_ms > 0 && view.row < gate.in_a_row;
      if (view.last != GateResult::kUnknown || again)
        return wait(describe(gate, view) + ", seen " + std::to_string(view.row) + " of " +
                    std::to_string(gate.in_a_row) + " times");
      if (away() > 0 && !patience_is_over())
        return wait(describe(gate, view) + "; " + devices(away()) + are(away()) + "offline");
      return take(Step::kPause, "it cannot be judged: " + describe(gate, view));
    }
    return std::nullopt;
  }

  std::string completed_text() const {
    const std::int64_t judged = counts_.reached() + counts_.waiting();
    std::string text = counts_.failed > 0 ? failure_text(counts_.failed, judged)
                                          : devices(counts_.confirmed) + " confirmed";
    if (away() > 0)
      text += "; " + devices(away()) + are(away()) + "offline and " +
              (plan_.windows.empty() ? "will follow" : "left out: their windows have passed");
    return text;
  }

  const RolloutPlan& plan_;
  const RolloutProgress& progress_;
  const RolloutSeen& seen_;
  const StageCounts& counts_;
};

Error refused(Order order, State state, const char* hint) {
  return Error(Code::kConflict, "a rollout that is " + std::string(name_of(state)) + " takes no " +
                                    std::string(name_of(order)))
      .hint(hint);
}

}  // namespace

std::string_view name_of(RolloutState state) {
  for (const auto& [value, name] : kStates)
    if (value == state) return name;
  return "";
}

RolloutState rollout_state_named(std::string_view name) {
  for (const auto& [value, known] : kStates)
    if (known == name) return value;
  throw Error(Code::kCorrupt, "a rollout is in a state that is none")
      .with("state", std::string(name));
}

bool has_ended(RolloutState state) { return state >= State::kCompleted; }

std::string_view name_of(Step step) {
  constexpr std::array<std::string_view, 11> kNames{"WAIT",      "BEGIN",    "LET_GO",     "RETRY",
                                                    "SETTLE",    "UNSETTLE", "NEXT_STAGE", "PAUSE",
                                                    "ROLL_BACK", "RETURN",   "END"};
  return kNames.at(static_cast<std::size_t>(step));
}

std::string_view name_of(Order order) {
  constexpr std::array<std::string_view, 9> kNames{
      "approve", "pause", "resume", "skip", "advance", "finish", "abort", "roll_back", "retry"};
  return kNames.at(static_cast<std::size_t>(order));
}

bool patience_is_over(const RolloutPlan& plan, const RolloutProgress& progress,
                      std::int64_t now_ms) {
  return now_ms - progress.opened_ms >= plan.offline_patience.count();
}

Decision decide(const RolloutPlan& plan, const RolloutProgress& progress, const RolloutSeen& seen) {
  const Look look(plan, progress, seen);
  if (has_ended(progress.state)) return wait(progress.why);
  // Whoever takes its devices ends it, whatever it was about to do.
  if (!progress.returning && look.superseded())
    return end(State::kSuperseded, "newer deployments took every device");
  switch (progress.state) {
    case State::kAwaitingApproval:
    case State::kScheduled:
      return look.before_begin();
    case State::kRunning:
      return look.running();
    case State::kRollingBack:
      return look.taking_back();
    default:
      return wait(progress.why);
  }
}

RolloutProgress carry_out(RolloutProgress progress, const Decision& decision,
                          const RolloutSeen& seen) {
  progress.why = decision.why;
  switch (decision.step) {
    case Step::kWait:
    case Step::kLetGo:
    case Step::kRetry:
    case Step::kReturn:
      break;
    case Step::kBegin:
      progress.state = State::kRunning;
      progress.opened_ms = seen.now_ms;
      break;
    case Step::kSettle:
      progress.settled_ms = seen.now_ms;
      break;
    case Step::kUnsettle:
      progress.settled_ms = 0;
      break;
    case Step::kNextStage:
      progress.stage =
          progress.finish ? static_cast<std::int64_t>(seen.ends.size()) - 1 : progress.stage + 1;
      progress.opened_ms = seen.now_ms;
      progress.settled_ms = 0;
      progress.go_on = false;
      progress.skip_soak = false;
      break;
    case Step::kPause:
      progress.state = State::kPaused;
      break;
    case Step::kRollBack:
      progress.state = State::kRollingBack;
      progress.returning = true;
      progress.cause = decision.why;
      progress.forgiven = 0;
      progress.opened_ms = seen.now_ms;
      break;
    case Step::kEnd:
      progress.state = decision.end;
      break;
  }
  return progress;
}

RolloutProgress obey(RolloutProgress progress, Order order, const StageCounts& counts,
                     std::int64_t now_ms) {
  const State state = progress.state;
  const bool moves = state == State::kRunning || state == State::kRollingBack;
  const bool before = state == State::kAwaitingApproval || state == State::kScheduled;
  switch (order) {
    case Order::kApprove:
      if (state != State::kAwaitingApproval)
        throw refused(order, state, "it waits for nobody's approval");
      progress.approved = true;
      progress.state = State::kScheduled;
      progress.why = "it was approved";
      return progress;
    case Order::kPause:
      if (!moves) throw refused(order, state, "only one that moves can be paused");
      progress.state = State::kPaused;
      progress.why = "an operator paused it";
      return progress;
    case Order::kResume:
      if (state != State::kPaused) throw refused(order, state, "it is not paused");
      progress.state = progress.returning ? State::kRollingBack : State::kRunning;
      progress.forgiven = progress.returning ? counts.stuck : counts.failed;
      progress.accepted_ms = now_ms;
      progress.settled_ms = 0;  // it is watched again
      progress.why = "an operator let it go on";
      return progress;
    case Order::kSkip:
      if (state != State::kRunning)
        throw refused(order, state, "only one that runs watches its stage");
      progress.skip_soak = true;
      progress.why = "an operator cut the watch of the stage short";
      return progress;
    case Order::kAdvance:
    case Order::kFinish:
      if (progress.returning || before || has_ended(state))
        throw refused(order, state, "only one that goes forward has stages to come");
      progress.state = State::kRunning;
      progress.forgiven = counts.failed;
      progress.accepted_ms = now_ms;
      (order == Order::kAdvance ? progress.go_on : progress.finish) = true;
      progress.why = order == Order::kAdvance ? "an operator let the next stage begin"
                                              : "an operator let all devices begin";
      return progress;
    case Order::kAbort:
      if (has_ended(state)) throw refused(order, state, "it has ended; flock rollouts rollback");
      progress.state = State::kAborted;
      progress.returning = false;
      progress.why = "an operator aborted it";
      return progress;
    case Order::kRollBack:
      if (progress.returning || before || state == State::kSuperseded)
        throw refused(order, state, "there is nothing that it changed and could take back");
      progress.state = State::kRollingBack;
      progress.returning = true;
      progress.cause = progress.why = "an operator took it back";
      progress.forgiven = 0;
      progress.opened_ms = now_ms;
      return progress;
    case Order::kRetry:
      if (progress.returning || before || state == State::kSuperseded || state == State::kAborted)
        throw refused(order, state, "only what goes forward can be tried again");
      if (counts.failed == 0) throw refused(order, state, "no device has failed");
      progress.state = State::kRunning;
      progress.forgiven = 0;
      progress.accepted_ms = now_ms;
      progress.settled_ms = 0;
      progress.opened_ms = now_ms;
      progress.why = "an operator gave the devices that failed another try";
      return progress;
  }
  throw refused(order, state, "no such order");
}

}  // namespace flock::domain

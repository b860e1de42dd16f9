// SPDX-License-Identifier: Apache-2.0
// The state machine of a rollout: what is done next, and why in words. No clock, no I/O: the
// scheduler measures, asks decide(), does it, and stores what carry_out() makes of the progress.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "domain/rollout_gate.h"
#include "domain/rollout_plan.h"

namespace flock::domain {

enum class RolloutState {
  kAwaitingApproval,
  kScheduled,
  kRunning,
  kPaused,
  kRollingBack,
  // Ended:
  kCompleted,
  kFailed,
  kAborted,
  kRolledBack,
  kSuperseded,
};
std::string_view name_of(RolloutState state);
// Throws Error{kCorrupt} on a name that is none.
RolloutState rollout_state_named(std::string_view name);
bool has_ended(RolloutState state);

// What is stored of a rollout between two decisions.
struct RolloutProgress {
  RolloutState state = RolloutState::kRunning;
  std::int64_t stage = 0;       // the open one, from 0
  std::int64_t opened_ms = 0;   // Unix time: since when it is open, or devices are taken back
  std::int64_t settled_ms = 0;  // since when its devices are settled; 0 while they are not
  std::int64_t forgiven = 0;  // failures, of the way back if it is on it, that an operator accepted
  std::int64_t accepted_ms = 0;  // since when: what gates elsewhere said before counts no more
  bool returning = false;        // devices are taken back; paused or not
  bool approved = false;
  bool go_on = false;      // an operator said: the next stage, whatever the gates say
  bool skip_soak = false;  // an operator said: the open stage was watched long enough
  bool finish = false;     // an operator said: all the others, without gates
  std::string cause;       // why devices are taken back
  std::string why;         // what it waits for or how it ended, in words
};

struct RolloutSeen {
  std::int64_t now_ms = 0;         // Unix time
  std::vector<std::int64_t> ends;  // stage_ends()
  StageCounts counts;
  std::vector<GateView> gates;  // of the plan's gates, in their order
  std::string first_failure;    // a failed device's reason, or ""
  // With maintenance windows: the time zones of those that may begin now, and when (Unix time) the
  // next window opens of those that may not.
  std::vector<std::string> open_zones;
  std::int64_t next_opening_ms = 0;
};

enum class Step {
  kWait,
  kBegin,     // from approval or schedule to running
  kLetGo,     // `count` devices of the open stage begin
  kRetry,     // devices that failed wait for their turn again
  kSettle,    // the open stage's devices are settled: its soak begins
  kUnsettle,  // one of them is not any more
  kNextStage,
  kPause,
  kRollBack,  // devices are taken back from now on
  kReturn,    // `count` devices are taken back
  kEnd,       // in the state `end`
};
std::string_view name_of(Step step);

struct Decision {
  Step step = Step::kWait;
  std::int64_t count = 0;
  RolloutState end = RolloutState::kCompleted;
  std::string why;
};

// Whether devices that are away were waited for long enough.
bool patience_is_over(const RolloutPlan& plan, const RolloutProgress& progress,
                      std::int64_t now_ms);

Decision decide(const RolloutPlan& plan, const RolloutProgress& progress, const RolloutSeen& seen);
RolloutProgress carry_out(RolloutProgress progress, const Decision& decision,
                          const RolloutSeen& seen);

// What an operator can tell a rollout to do.
enum class Order {
  kApprove,
  kPause,
  kResume,
  kSkip,  // the rest of the open stage's soak; its gates count
  kAdvance,
  kFinish,
  kAbort,
  kRollBack,
  kRetry,  // all that failed, also of one that has ended
};
std::string_view name_of(Order order);
// The progress after it. What failed up to now counts no more when it is told to go on. Throws
// Error{kConflict} with a hint when the order makes no sense in this state.
RolloutProgress obey(RolloutProgress progress, Order order, const StageCounts& counts,
                     std::int64_t now_ms);

}  // namespace flock::domain

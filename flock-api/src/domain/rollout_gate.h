// SPDX-License-Identifier: Apache-2.0
// Gates, measured: pass, fail, or not known.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "domain/comparison.h"
#include "domain/rollout_plan.h"

namespace flock::domain {

// The devices of a rollout, counted. Those that a newer deployment took count as `superseded` only.
struct StageCounts {
  std::int64_t total = 0, superseded = 0;
  std::int64_t updating = 0, offline = 0;  // reached and not settled, by presence
  std::int64_t confirmed = 0, failed = 0;
  std::int64_t began_lately = 0;  // were reached within the last minute
  // Of the open stage and those before it, not reached yet; by presence.
  std::int64_t waiting_online = 0, waiting_offline = 0;
  std::int64_t waiting_closed = 0;  // whose maintenance window is closed, whether there or not
  std::int64_t waiting_held = 0;    // online, and held back by the limit of devices that are down
  // Of those that failed, for another try: it is time for them, and it is not yet.
  std::int64_t to_retry = 0, retry_later = 0;
  std::int64_t stage_settled = 0, stage_away = 0;  // of the open stage alone: settled, offline
  // Of those reached:
  std::int64_t online = 0, unhealthy = 0, restarting = 0;
  std::int64_t confirmed_lately = 0, failed_lately = 0;  // within the last ten minutes
  // Of those that are taken back: not begun, on the way (by presence), there, and failed in it.
  std::int64_t to_return = 0, returning = 0, returning_offline = 0, returned = 0, stuck = 0;
  std::int64_t return_held = 0;  // not begun, and held back as those of `waiting_held` are

  std::int64_t waiting() const noexcept {
    return waiting_online + waiting_offline + waiting_closed + waiting_held;
  }
  std::int64_t reached() const noexcept { return updating + offline + confirmed + failed; }
  std::int64_t settled() const noexcept { return confirmed + failed; }
};

struct Measure {
  double value = 0;
  std::int64_t sample = 0;  // devices that it was measured on
};
// `forgiven` failures were accepted by an operator and count no more.
Measure measure(Signal signal, const StageCounts& counts, std::int64_t forgiven);

enum class GateResult { kPass, kFail, kUnknown };
std::string_view name_of(GateResult result);

// Every gate is looked at this often at most.
inline constexpr Duration kGateEvery{5000};

// What a gate that looks elsewhere found last. Whoever asks keeps it; decide() only reads it.
struct Check {
  std::int64_t at_ms = 0;       // Unix time at which it began; 0: there was none
  std::optional<double> value;  // measured; nothing: it was not, and `reason` says why
  std::int64_t sample = 0;      // devices
  GateResult verdict = GateResult::kUnknown;  // of a webhook or a comparison
  std::string reason;                         // in words
};
// How old a check may be and still say how things are.
Duration longest_age(const Gate& gate);

struct GateView {
  Measure now;
  GateResult last = GateResult::kUnknown;    // of the last look
  GateResult result = GateResult::kUnknown;  // what counts: `last`, when it was so often enough
  std::int64_t row = 0;                      // looks with the same result, up to the last
  std::int64_t since_ms = 0, looked_ms = 0;  // Unix times: since when `last` is so; the last look
  std::string reason;                        // of a gate that looks elsewhere, in words
};
// The next view of a gate. A gate of one look counts at once.
GateView look(const Gate& gate, const StageCounts& counts, std::int64_t forgiven,
              const GateView& before, std::int64_t now_ms);
// The same for a gate that looks elsewhere: every new check is a look. One that began before
// `from_ms`, when an operator let the rollout go on, counts no more, and one that is old says
// nothing.
GateView look(const Gate& gate, const Check& check, std::int64_t from_ms, const GateView& before,
              std::int64_t now_ms);
// What a comparison says by now.
Check conclude(const Gate& gate, const Evidence& evidence, std::int64_t at_ms);

// What people call a gate: its label, or what it looks at.
std::string title(const Gate& gate);
// "failed 12.5 % of 8 devices, at most 10 %".
std::string describe(const Gate& gate, const GateView& view);
// "12.5 %"
std::string percent(double ratio);
// At most six digits: "81.25", "1.5e+09".
std::string number_text(double value);

}  // namespace flock::domain

// SPDX-License-Identifier: Apache-2.0
#include "domain/rollout_gate.h"

#include <algorithm>
#include <cmath>

namespace flock::domain {
namespace {

Measure ratio(std::int64_t part, std::int64_t whole) {
  if (whole <= 0) return {};
  return {static_cast<double>(std::max<std::int64_t>(part, 0)) / static_cast<double>(whole), whole};
}

// Ratios of counts: what differs by less than this is the same share, written otherwise.
constexpr double kSame = 1e-9;

GateResult judge(const Gate& gate, const Measure& now) {
  if (now.sample < gate.sample) return GateResult::kUnknown;
  const bool passes =
      wants_much(gate.signal) ? now.value >= gate.limit - kSame : now.value <= gate.limit + kSame;
  return passes ? GateResult::kPass : GateResult::kFail;
}

}  // namespace

Measure measure(Signal signal, const StageCounts& counts, std::int64_t forgiven) {
  const std::int64_t failed = std::max<std::int64_t>(counts.failed - forgiven, 0);
  switch (signal) {
    case Signal::kConfirmed:
      return ratio(counts.confirmed, counts.confirmed + failed);
    case Signal::kOnline:
      return ratio(counts.online, counts.reached());
    case Signal::kFailed:
      return ratio(failed, counts.confirmed + failed);
    case Signal::kFailedLately: {
      const std::int64_t lately = std::min(counts.failed_lately, failed);
      return ratio(lately, counts.confirmed_lately + lately);
    }
    case Signal::kUnhealthy:
      return ratio(counts.unhealthy, counts.confirmed);
    case Signal::kRestarting:
      return ratio(counts.restarting, counts.reached());
  }
  return {};
}

std::string_view name_of(GateResult result) {
  switch (result) {
    case GateResult::kPass:
      return "PASS";
    case GateResult::kFail:
      return "FAIL";
    case GateResult::kUnknown:
      break;
  }
  return "UNKNOWN";
}

GateView look(const Gate& gate, const StageCounts& counts, std::int64_t forgiven,
              const GateView& before, std::int64_t now_ms) {
  GateView view = before;
  view.now = measure(gate.signal, counts, forgiven);
  const GateResult last = judge(gate, view.now);
  if (last != before.last || before.looked_ms == 0) {
    view.row = 1;
    view.since_ms = view.looked_ms = now_ms;
  } else if (now_ms - before.looked_ms >= kGateEvery.count()) {
    view.row = std::min(before.row + 1, gate.in_a_row);
    view.looked_ms = now_ms;
  }
  view.last = last;
  view.result = view.row >= gate.in_a_row ? last : GateResult::kUnknown;
  return view;
}

std::string percent(double ratio) {
  const auto tenths = static_cast<std::int64_t>(std::llround(ratio * 1000));
  std::string text = std::to_string(tenths / 10);
  if (tenths % 10 != 0) text += "." + std::to_string(tenths % 10);
  return text + " %";
}

std::string describe(const Gate& gate, const GateView& view) {
  std::string text(name_of(gate.signal));
  std::replace(text.begin(), text.end(), '_', ' ');
  if (view.now.sample < gate.sample) {
    return text + " was measured on " + std::to_string(view.now.sample) + " of at least " +
           std::to_string(gate.sample) + " devices";
  }
  return text + " " + percent(view.now.value) + " of " + std::to_string(view.now.sample) +
         (view.now.sample == 1 ? " device" : " devices") +
         (wants_much(gate.signal) ? ", at least " : ", at most ") + percent(gate.limit);
}

}  // namespace flock::domain

// SPDX-License-Identifier: Apache-2.0
#include "domain/rollout_gate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <utility>

#include "base/time.h"

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

GateResult judge(const Gate& gate, const Check& check) {
  if (check.sample < gate.sample) return GateResult::kUnknown;
  if (gate.kind == GateKind::kWebhook || gate.kind == GateKind::kComparison) return check.verdict;
  if (!check.value) return GateResult::kUnknown;
  const bool passes = gate.at_least ? *check.value >= gate.limit : *check.value <= gate.limit;
  return passes ? GateResult::kPass : GateResult::kFail;
}

// What an answer that came after the next ones should have come may take.
constexpr Duration kGrace{10'000};

// The host and port of a URL: its path may be longer than anybody wants to read.
std::string_view host_of(std::string_view url) {
  const std::size_t scheme = url.find("://");
  if (scheme != std::string_view::npos) url.remove_prefix(scheme + 3);
  return url.substr(0, url.find_first_of("/?#"));
}

std::string devices(std::int64_t count) {
  return std::to_string(count) + (count == 1 ? " device" : " devices");
}

std::string limit_of(const Gate& gate) {
  if (!gate.is_elsewhere())
    return (wants_much(gate.signal) ? ", at least " : ", at most ") + percent(gate.limit);
  return (gate.at_least ? ", at least " : ", at most ") + number_text(gate.limit);
}

std::string describe_elsewhere(const Gate& gate, const GateView& view) {
  const std::string name = title(gate);
  if (view.last == GateResult::kUnknown) {
    if (!view.reason.empty() || view.now.sample >= gate.sample)
      return name + " says nothing" + (view.reason.empty() ? "" : ": ") + view.reason;
    return name + " was measured on " + std::to_string(view.now.sample) + " of at least " +
           devices(gate.sample);
  }
  switch (gate.kind) {
    case GateKind::kWebhook:
      return name + (view.last == GateResult::kPass ? " says pass" : " says fail") +
             (view.reason.empty() ? "" : ": ") + view.reason;
    case GateKind::kComparison:
      return name + ": " + percent(view.now.value) + " of " + devices(view.now.sample) + "; " +
             view.reason;
    default:
      return name + " " + number_text(view.now.value) + " of " + devices(view.now.sample) +
             limit_of(gate);
  }
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

Duration longest_age(const Gate& gate) { return 2 * gate.interval + gate.timeout + kGrace; }

GateView look(const Gate& gate, const Check& check, std::int64_t from_ms, const GateView& before,
              std::int64_t now_ms) {
  if (check.at_ms == 0 || check.at_ms < from_ms)
    return {.now = {}, .reason = "it was not looked at yet"};
  GateView view = before;
  view.now = {check.value.value_or(0), check.sample};
  view.reason = check.reason;
  const std::int64_t age = now_ms - check.at_ms;
  const bool stale = age > longest_age(gate).count();
  const GateResult last = stale ? GateResult::kUnknown : judge(gate, check);
  if (last != before.last || before.looked_ms == 0 || before.looked_ms < from_ms) {
    view.row = 1;
    view.since_ms = check.at_ms;
  } else if (check.at_ms > before.looked_ms) {
    view.row = std::min(before.row + 1, gate.in_a_row);
  }
  view.looked_ms = check.at_ms;
  if (stale) {  // to look again will not help: nobody asks any more
    view.row = gate.in_a_row;
    view.reason = "the last look was " + to_string(Duration(age / 1000 * 1000)) + " ago";
  }
  view.last = last;
  view.result = view.row >= gate.in_a_row ? last : GateResult::kUnknown;
  return view;
}

Check conclude(const Gate& gate, const Evidence& evidence, std::int64_t at_ms) {
  const Measure updated = ratio(evidence.updated_bad, evidence.updated);
  const Measure others = ratio(evidence.others_bad, evidence.others);
  const double p = p_value(evidence);
  Check check{.at_ms = at_ms, .sample = updated.sample};
  if (updated.sample > 0) check.value = updated.value;
  if (updated.sample >= gate.sample) {
    check.verdict = p <= gate.alpha ? GateResult::kFail : GateResult::kPass;
    check.reason = percent(others.value) + " of " + devices(others.sample) +
                   " that are not updated; an alarm at p " + number_text(gate.alpha) + ", now " +
                   number_text(p);
  }
  return check;
}

std::string title(const Gate& gate) {
  if (!gate.label.empty()) return gate.label;
  switch (gate.kind) {
    case GateKind::kDevices: {
      std::string text(name_of(gate.signal));
      std::replace(text.begin(), text.end(), '_', ' ');
      return text;
    }
    case GateKind::kMetric:
      return (gate.service.empty() ? "" : gate.service + " ") + gate.metric + " (" +
             std::string(name_of(gate.aggregate)) + " of " + to_string(gate.window) + ")";
    case GateKind::kQuery:
      return "the query";
    case GateKind::kWebhook:
      return std::string(host_of(gate.url));
    case GateKind::kComparison:
      break;
  }
  return "bad devices among the updated";
}

std::string percent(double ratio) {
  const auto tenths = static_cast<std::int64_t>(std::llround(ratio * 1000));
  std::string text = std::to_string(tenths / 10);
  if (tenths % 10 != 0) text += "." + std::to_string(tenths % 10);
  return text + " %";
}

std::string number_text(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.6g", value);
  return text.data();
}

std::string describe(const Gate& gate, const GateView& view) {
  if (gate.is_elsewhere()) return describe_elsewhere(gate, view);
  if (view.now.sample < gate.sample) {
    return title(gate) + " was measured on " + std::to_string(view.now.sample) + " of at least " +
           std::to_string(gate.sample) + " devices";
  }
  return title(gate) + " " + percent(view.now.value) + " of " + devices(view.now.sample) +
         limit_of(gate);
}

}  // namespace flock::domain

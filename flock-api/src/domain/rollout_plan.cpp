// SPDX-License-Identifier: Apache-2.0
#include "domain/rollout_plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>
#include <utility>

#include "domain/metrics.h"

namespace flock::domain {
namespace {

constexpr std::array<std::pair<Signal, std::string_view>, 6> kSignals{{
    {Signal::kConfirmed, "confirmed"},
    {Signal::kOnline, "online"},
    {Signal::kFailed, "failed"},
    {Signal::kFailedLately, "failed_lately"},
    {Signal::kUnhealthy, "unhealthy"},
    {Signal::kRestarting, "restarting"},
}};
constexpr std::array<std::pair<GateKind, std::string_view>, 5> kKinds{{
    {GateKind::kDevices, "devices"},
    {GateKind::kMetric, "metric"},
    {GateKind::kQuery, "query"},
    {GateKind::kWebhook, "webhook"},
    {GateKind::kComparison, "comparison"},
}};
constexpr std::array<std::pair<Aggregate, std::string_view>, 3> kAggregates{{
    {Aggregate::kAvg, "avg"},
    {Aggregate::kMax, "max"},
    {Aggregate::kP95, "p95"},
}};

template <class Table, class Value>
std::string_view name_in(const Table& table, Value wanted) {
  for (const auto& [value, name] : table)
    if (value == wanted) return name;
  return "";
}
template <class Table>
auto value_in(const Table& table, std::string_view wanted) {
  using Value = std::remove_const_t<decltype(table.front().first)>;
  for (const auto& [value, name] : table)
    if (name == wanted) return std::optional<Value>(value);
  return std::optional<Value>();
}

constexpr Duration kLongestSoak{30LL * 86'400'000};
constexpr Duration kLongestWindow{7LL * 86'400'000}, kLongestInterval{3'600'000};
constexpr Duration kShortestInterval{5000}, kLongestTimeout{30'000};

bool is_ratio(double value) { return value >= 0 && value <= 1; }  // false for NaN

void check_stages(const RolloutPlan& plan, std::vector<PlanFault>& faults) {
  if (plan.stages.empty() || plan.stages.size() > kMaxStages) {
    faults.push_back({"/stages", "there must be 1 to " + std::to_string(kMaxStages) + " stages"});
    return;
  }
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    const Stage& stage = plan.stages[i];
    const std::string at = "/stages/" + std::to_string(i);
    if (stage.count < 0) faults.push_back({at + "/count", "must be at least 1"});
    if (stage.count == 0 && !(stage.share > 0 && stage.share <= 1))
      faults.push_back({at + "/percent", "must be above 0 and at most 100"});
    if (stage.soak < Duration(0) || stage.soak > kLongestSoak)
      faults.push_back({at + "/soak", "must be at most " + to_string(kLongestSoak)});
    if (i == 0) continue;
    const Stage& before = plan.stages[i - 1];
    if (stage.count > 0 && before.count > 0 && stage.count <= before.count)
      faults.push_back({at + "/count", "must be above that of the stage before it"});
    if (stage.count == 0 && before.count == 0 && stage.share <= before.share)
      faults.push_back({at + "/percent", "must be above that of the stage before it"});
  }
  const Stage& last = plan.stages.back();
  if (last.count > 0 || last.share < 1)
    faults.push_back({"/stages/" + std::to_string(plan.stages.size() - 1) + "/percent",
                      "the last stage must reach every device: 100"});
}

bool is_within(Duration value, Duration least, Duration most) {
  return value >= least && value <= most;
}
std::string between(Duration least, Duration most) {
  return "must be between " + to_string(least) + " and " + to_string(most);
}

// What only gates that look elsewhere have.
void check_elsewhere(const Gate& gate, const std::string& at, std::vector<PlanFault>& faults) {
  const auto require = [&](bool good, const char* key, std::string what) {
    if (!good) faults.push_back({at + "/" + key, std::move(what)});
  };
  require(is_within(gate.interval, kShortestInterval, kLongestInterval), "interval",
          between(kShortestInterval, kLongestInterval));
  require(is_within(gate.window, kShortestInterval, kLongestWindow), "window",
          between(kShortestInterval, kLongestWindow));
  require(is_within(gate.timeout, Duration(100), kLongestTimeout), "timeout",
          between(Duration(100), kLongestTimeout));
  require(is_within(gate.after, Duration(0), kLongestWindow), "after",
          between(Duration(0), kLongestWindow));
  require(std::isfinite(gate.limit), gate.at_least ? "at_least" : "at_most", "must be a number");
  require(gate.alpha >= 1e-6 && gate.alpha <= 0.5, "alpha", "must be between 0.000001 and 0.5");
  require(gate.tolerance >= 0 && gate.tolerance <= 0.5, "tolerance", "must be between 0 and 0.5");
  if (gate.kind == GateKind::kMetric) {
    const auto named = [&](const auto& metric) { return metric.name == gate.metric; };
    const bool known = gate.service.empty() ? std::ranges::any_of(host_metrics(), named)
                                            : std::ranges::any_of(service_metrics(), named);
    require(known, "metric",
            gate.service.empty() ? "is no metric of a machine (flock metrics names them); one of a "
                                   "service needs its service"
                                 : "is no metric of a service");
  }
}

void check_gates(const RolloutPlan& plan, std::vector<PlanFault>& faults) {
  if (plan.gates.size() > kMaxGates)
    faults.push_back({"/gates", "there may be " + std::to_string(kMaxGates) + " gates at most"});
  for (std::size_t i = 0; i < plan.gates.size(); ++i) {
    const Gate& gate = plan.gates[i];
    const std::string at = "/gates/" + std::to_string(i);
    if (gate.is_elsewhere()) check_elsewhere(gate, at, faults);
    if (!gate.is_elsewhere() && !is_ratio(gate.limit))
      faults.push_back({at + "/limit", "must be between 0 and 1"});
    if (gate.sample < 1) faults.push_back({at + "/sample", "must be at least 1"});
    if (gate.in_a_row < 1 || gate.in_a_row > 100)
      faults.push_back({at + "/in_a_row", "must be between 1 and 100"});
    const auto same = [&](const Gate& other) {
      return !other.is_elsewhere() && other.signal == gate.signal;
    };
    if (gate.is_elsewhere()) continue;
    if (std::any_of(plan.gates.begin(), plan.gates.begin() + static_cast<std::ptrdiff_t>(i), same))
      faults.push_back({at + "/signal", "there is a gate on it already"});
  }
}

void check_windows(const RolloutPlan& plan, std::vector<PlanFault>& faults) {
  if (plan.windows.size() > kMaxWindows)
    faults.push_back(
        {"/windows", "there may be " + std::to_string(kMaxWindows) + " windows at most"});
  for (std::size_t i = 0; i < plan.windows.size(); ++i) {
    const MaintenanceWindow& window = plan.windows[i];
    const std::string at = "/windows/" + std::to_string(i);
    if (window.days.none()) faults.push_back({at + "/days", "it opens on no day, so never"});
    if (window.from == window.to || window.from >= 24 * 60)
      faults.push_back({at + "/to", "it never opens: it begins when it ends"});
    if (!window.time_zone.empty() && !is_time_zone(window.time_zone))
      faults.push_back({at + "/time_zone", "is no time zone; say it as Europe/Oslo"});
  }
}

void check_retries(const Retries& retries, std::vector<PlanFault>& faults) {
  if (retries.times < 0 || retries.times > kMaxRetries)
    faults.push_back({"/retries", "must be between 0 and " + std::to_string(kMaxRetries)});
  if (retries.after < Duration(0) || retries.after > kLongestSoak)
    faults.push_back({"/retry_after", "must be at most " + to_string(kLongestSoak)});
}

}  // namespace

std::string_view name_of(Signal signal) { return name_in(kSignals, signal); }
std::optional<Signal> signal_named(std::string_view name) { return value_in(kSignals, name); }
std::string_view name_of(GateKind kind) { return name_in(kKinds, kind); }
std::optional<GateKind> gate_kind_named(std::string_view name) { return value_in(kKinds, name); }
std::string_view name_of(Aggregate aggregate) { return name_in(kAggregates, aggregate); }
std::optional<Aggregate> aggregate_named(std::string_view name) {
  return value_in(kAggregates, name);
}

bool wants_much(Signal signal) { return signal == Signal::kConfirmed || signal == Signal::kOnline; }

bool is_judged_at_the_end(const Gate& gate) {
  return !gate.is_elsewhere() && wants_much(gate.signal);
}

std::vector<PlanFault> faults_of(const RolloutPlan& plan) {
  std::vector<PlanFault> faults;
  check_stages(plan, faults);
  check_gates(plan, faults);
  check_windows(plan, faults);
  check_retries(plan.retries, faults);
  if (plan.limits.updating < 0) faults.push_back({"/max_updating", "must be at least 1"});
  if (plan.limits.per_minute < 0) faults.push_back({"/max_per_minute", "must be at least 1"});
  if (plan.limits.down.count < 0) faults.push_back({"/max_down_per/count", "must be at least 1"});
  if (plan.limits.down.any() && plan.limits.down.label.empty())
    faults.push_back({"/max_down_per/label", "say the values of which label"});
  if (!is_ratio(plan.max_failed_ratio))
    faults.push_back({"/max_failed_ratio", "must be between 0 and 1"});
  if (plan.offline_patience < Duration(0) || plan.offline_patience > kLongestSoak)
    faults.push_back({"/offline_patience", "must be at most " + to_string(kLongestSoak)});
  return faults;
}

std::vector<std::int64_t> stage_ends(const RolloutPlan& plan, std::int64_t total) {
  std::vector<std::int64_t> ends;
  std::int64_t before = 0;
  for (const Stage& stage : plan.stages) {
    // A share such as 0.1 is a little more than a tenth: what is within a millionth is no device.
    const double exact = stage.share * static_cast<double>(total);
    const std::int64_t wanted =
        stage.count > 0 ? stage.count : static_cast<std::int64_t>(std::ceil(exact - 1e-6));
    before = std::clamp(wanted, before, total);
    ends.push_back(before);
  }
  if (!ends.empty()) ends.back() = total;
  return ends;
}

}  // namespace flock::domain

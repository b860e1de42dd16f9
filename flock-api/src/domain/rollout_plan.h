// SPDX-License-Identifier: Apache-2.0
// What was decided about a rollout before it began (spec.md, Release and Rollout Model).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/secret.h"
#include "base/time.h"
#include "domain/maintenance_window.h"

namespace flock::domain {

// A stage holds the devices of those before it too: of ten devices, stages of 0.1 and 1 reach one
// device and then nine more.
struct Stage {
  double share = 1;        // of the rollout's devices, above 0 and at most 1; unless there is
  std::int64_t count = 0;  // a number of devices (0: none)
  Duration soak{0};        // how long it is watched after its last device settled
  bool by_hand = false;    // the next one begins when an operator says so
};

// What is measured on the devices that were reached so far.
enum class Signal {
  kConfirmed,     // confirmed, of those that settled; at the end of a stage
  kOnline,        // online, of those reached; at the end of a stage
  kFailed,        // failed, of those that settled
  kFailedLately,  // the same, of those that settled within the last ten minutes
  kUnhealthy,     // unhealthy after they were confirmed, of those confirmed
  kRestarting,    // whose containers restart again and again, of those reached
};
std::string_view name_of(Signal signal);
std::optional<Signal> signal_named(std::string_view name);
// Its limit is the least value that passes; that of the others is the most.
bool wants_much(Signal signal);

// Where a gate looks: at what the rollout's own devices reported, or elsewhere.
enum class GateKind {
  kDevices,     // a signal
  kMetric,      // a metric of the devices reached, out of the time series
  kQuery,       // a question of the operator's to the time series
  kWebhook,     // a service of the operator's, which says pass or fail
  kComparison,  // the devices reached beside those that are not yet (domain/comparison.h)
};
std::string_view name_of(GateKind kind);
std::optional<GateKind> gate_kind_named(std::string_view name);

enum class Aggregate { kAvg, kMax, kP95 };
std::string_view name_of(Aggregate aggregate);
std::optional<Aggregate> aggregate_named(std::string_view name);

struct Gate {
  Signal signal = Signal::kFailed;
  double limit = 0;           // 0..1 for kDevices
  std::int64_t sample = 1;    // devices that it must be measured on at least
  std::int64_t in_a_row = 1;  // equal results, kGateEvery or `interval` apart, before they count
  bool dry_run = false;       // is shown, and stops nothing

  // Of those that look elsewhere:
  GateKind kind = GateKind::kDevices;
  bool at_least = false;      // kMetric, kQuery: `limit` is the least value that passes
  std::string label;          // what people call it; "": what it looks at
  Duration interval{30'000};  // between two checks
  Duration window{600'000};   // kMetric, kQuery: how far back rows may lie
  std::string metric;         // kMetric: domain/metrics.h
  std::string service;        // kMetric: whose; "": the machine's
  Aggregate aggregate = Aggregate::kAvg;
  std::string query;         // kQuery
  std::string url;           // kWebhook
  Secret secret;             // kWebhook: its key, in a new plan only; kept apart from it, sealed
  Duration timeout{10'000};  // kWebhook: for the whole exchange
  double alpha = 0.01;       // kComparison: the probability of a false alarm, at most
  double tolerance = 0.01;   // kComparison: how much worse the updated may be, 0..0.5
  Duration after{300'000};   // kComparison: a device counts this long after it was reached

  bool is_elsewhere() const noexcept { return kind != GateKind::kDevices; }
};
// A gate that says how far a stage is, rather than how well it goes, is judged at its end only.
bool is_judged_at_the_end(const Gate& gate);

// Of the devices with the same value of a label, and of those without it, so many at most are down
// at the same time: at work, away, or reached and not well.
struct DownLimit {
  std::string label;
  std::int64_t count = 0;  // 0: no limit
  bool any() const noexcept { return count > 0; }
};

// 0: no limit.
struct Limits {
  std::int64_t updating = 0;    // devices at the same time
  std::int64_t per_minute = 0;  // devices that begin
  DownLimit down;
  bool any() const noexcept { return updating > 0 || per_minute > 0 || down.any(); }
};

// A device that failed is given the release again, so many times, each so long after it failed.
struct Retries {
  std::int64_t times = 0;
  Duration after{5 * 60'000};
};

enum class OnFailure { kStop, kPause, kRollBack };

struct RolloutPlan {
  std::vector<Stage> stages{Stage{}};
  std::vector<Gate> gates;
  Limits limits;
  std::vector<MaintenanceWindow> windows;  // in which devices begin; none: always
  Retries retries;
  OnFailure on_failure = OnFailure::kStop;
  double max_failed_ratio = 1;               // of the devices reached: above it the rollout failed
  Duration offline_patience{24 * 3600'000};  // how long devices that are away are waited for
  bool approval = false;                     // another person must agree before it begins
  std::int64_t start_at_ms = 0;              // Unix time; 0: at once
  std::string spread_over;  // a label: each stage takes its share of each of its values; "": none

  // Whether a device begins only while it is there: one that comes later would not keep to it.
  bool only_online() const noexcept { return limits.any() || !windows.empty(); }
};

inline constexpr std::size_t kMaxStages = 50, kMaxGates = 20;
inline constexpr std::int64_t kMaxRetries = 10;

struct PlanFault {
  std::string pointer;  // into the strategy, as "/stages/1/percent"
  std::string what;
};
// Everything that is wrong with a plan; empty when it can be carried out.
std::vector<PlanFault> faults_of(const RolloutPlan& plan);

// How many of `total` devices each stage reaches; the last one reaches all. A share is rounded up,
// so that no stage is empty while there are devices.
std::vector<std::int64_t> stage_ends(const RolloutPlan& plan, std::int64_t total);

}  // namespace flock::domain

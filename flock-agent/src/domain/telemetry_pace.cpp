// SPDX-License-Identifier: Apache-2.0
#include "domain/telemetry_pace.h"

#include <algorithm>
#include <cmath>

namespace flock::agent {
namespace {

using device::v1::HostMetrics;
using device::v1::ServiceMetrics;
using device::v1::TelemetryPoint;

constexpr double kCpu = 0.05;    // of all cores; for a service: of one
constexpr double kShare = 0.02;  // of what there is
constexpr double kDegrees = 2;
constexpr double kGrowth = 0.05;  // of a service's memory
constexpr double kLoad = 0.5;
// Timers fire a little late or early; a batch is not put off by a whole look for that.
constexpr Duration kSlack{200};

bool apart(double a, double b, double step) { return std::abs(a - b) > step; }

bool share_apart(std::int64_t a, std::int64_t b, std::int64_t whole) {
  return apart(static_cast<double>(a), static_cast<double>(b), kShare * static_cast<double>(whole));
}

// Traffic always grows, and is left out: the totals arrive with the next point.
bool host_differs(const HostMetrics& a, const HostMetrics& b) {
  return a.has_cpu_ratio() != b.has_cpu_ratio() ||
         apart(static_cast<double>(a.cpu_ratio()), static_cast<double>(b.cpu_ratio()), kCpu) ||
         apart(static_cast<double>(a.load_1m()), static_cast<double>(b.load_1m()), kLoad) ||
         share_apart(a.memory_used_bytes(), b.memory_used_bytes(), a.memory_total_bytes()) ||
         share_apart(a.swap_used_bytes(), b.swap_used_bytes(), a.memory_total_bytes()) ||
         share_apart(a.disk_used_bytes(), b.disk_used_bytes(), a.disk_total_bytes()) ||
         apart(static_cast<double>(a.temperature_celsius()),
               static_cast<double>(b.temperature_celsius()), kDegrees) ||
         a.throttled() != b.throttled();
}

bool service_differs(const ServiceMetrics& a, const ServiceMetrics& b) {
  const auto memory = static_cast<double>(a.memory_bytes());
  return a.service() != b.service() ||
         apart(static_cast<double>(a.cpu_cores()), static_cast<double>(b.cpu_cores()), kCpu) ||
         apart(memory, static_cast<double>(b.memory_bytes()), kGrowth * memory) ||
         a.pids() != b.pids();
}

}  // namespace

bool differs(const TelemetryPoint& a, const TelemetryPoint& b) {
  return host_differs(a.host(), b.host()) ||
         !std::equal(a.services().begin(), a.services().end(), b.services().begin(),
                     b.services().end(),
                     [](const auto& x, const auto& y) { return !service_differs(x, y); });
}

bool TelemetryPace::keep(const TelemetryPoint& point) {
  const std::int64_t age = point.at_ms() - kept_.at_ms();
  // A clock that was set back makes every point new.
  if (age >= 0 && age < (options_.quiet - kSlack).count() && !differs(kept_, point)) return false;
  kept_ = point;
  return true;
}

bool TelemetryPace::due(SteadyPoint now, bool updating) const noexcept {
  return sent_at_ == SteadyPoint() || now - sent_at_ + kSlack >= hurried(options_.send, updating);
}

}  // namespace flock::agent

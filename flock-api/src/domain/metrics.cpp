// SPDX-License-Identifier: Apache-2.0
#include "domain/metrics.h"

#include <algorithm>

namespace flock::domain {
namespace {

using Host = device::v1::HostMetrics;
using Service = device::v1::ServiceMetrics;

// `Has` and `Get`: the accessors of one optional field.
template <class Message, bool (Message::*Has)() const, auto Get>
std::optional<double> value(const Message& message) {
  if (!(message.*Has)()) return std::nullopt;
  return static_cast<double>((message.*Get)());
}

#define FLOCK_METRIC(Message, field, unit) \
  {#field, unit, &value<Message, &Message::has_##field, &Message::field>}

constexpr HostMetric kHost[] = {
    FLOCK_METRIC(Host, cpu_ratio, "ratio"),
    FLOCK_METRIC(Host, memory_used_bytes, "bytes"),
    FLOCK_METRIC(Host, memory_total_bytes, "bytes"),
    FLOCK_METRIC(Host, disk_used_bytes, "bytes"),
    FLOCK_METRIC(Host, disk_total_bytes, "bytes"),
    FLOCK_METRIC(Host, temperature_celsius, "celsius"),
    FLOCK_METRIC(Host, load_1m, ""),
    FLOCK_METRIC(Host, uptime_seconds, "seconds"),
    FLOCK_METRIC(Host, network_received_bytes, "bytes"),
    FLOCK_METRIC(Host, network_sent_bytes, "bytes"),
    FLOCK_METRIC(Host, throttled, "boolean"),
    FLOCK_METRIC(Host, swap_used_bytes, "bytes"),
};

constexpr ServiceMetric kService[] = {
    FLOCK_METRIC(Service, cpu_cores, "cores"),
    FLOCK_METRIC(Service, memory_bytes, "bytes"),
    FLOCK_METRIC(Service, memory_limit_bytes, "bytes"),
    FLOCK_METRIC(Service, network_received_bytes, "bytes"),
    FLOCK_METRIC(Service, network_sent_bytes, "bytes"),
    FLOCK_METRIC(Service, disk_read_bytes, "bytes"),
    FLOCK_METRIC(Service, disk_written_bytes, "bytes"),
    FLOCK_METRIC(Service, pids, ""),
};

#undef FLOCK_METRIC

}  // namespace

std::span<const HostMetric> host_metrics() { return kHost; }
std::span<const ServiceMetric> service_metrics() { return kService; }

bool is_metric(std::string_view name) {
  const auto named = [&](const auto& metric) { return metric.name == name; };
  return std::ranges::any_of(kHost, named) || std::ranges::any_of(kService, named);
}

}  // namespace flock::domain

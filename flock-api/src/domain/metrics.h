// SPDX-License-Identifier: Apache-2.0
// The names under which device metrics are stored and asked for: those of the proto fields.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "flock/device/v1/device.pb.h"

namespace flock::domain {

// `read`: nothing where the device could not tell.
struct HostMetric {
  std::string_view name, unit;
  std::optional<double> (*read)(const device::v1::HostMetrics&);
};
struct ServiceMetric {
  std::string_view name, unit;
  std::optional<double> (*read)(const device::v1::ServiceMetrics&);
};

std::span<const HostMetric> host_metrics();
std::span<const ServiceMetric> service_metrics();
// A name of either table.
bool is_metric(std::string_view name);

}  // namespace flock::domain

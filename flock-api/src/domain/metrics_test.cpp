// SPDX-License-Identifier: Apache-2.0
#include "domain/metrics.h"

#include <gtest/gtest.h>

#include <string>

namespace flock::domain {
namespace {

TEST(Metrics, AreNamedAsTheFieldsAndReadThem) {
  std::string names;
  for (const auto& metric : host_metrics()) names += std::string(metric.name) + " ";
  EXPECT_EQ(names,
            "cpu_ratio memory_used_bytes memory_total_bytes disk_used_bytes disk_total_bytes "
            "temperature_celsius load_1m uptime_seconds network_received_bytes network_sent_bytes "
            "throttled swap_used_bytes ");
  names.clear();
  for (const auto& metric : service_metrics()) names += std::string(metric.name) + " ";
  EXPECT_EQ(names,
            "cpu_cores memory_bytes memory_limit_bytes network_received_bytes network_sent_bytes "
            "disk_read_bytes disk_written_bytes pids ");
  device::v1::HostMetrics host;
  for (const auto& metric : host_metrics()) EXPECT_FALSE(metric.read(host)) << metric.name;
  host.set_cpu_ratio(0.5);
  host.set_throttled(true);
  EXPECT_EQ(host_metrics()[0].read(host), 0.5);
  EXPECT_EQ(host_metrics()[10].read(host), 1.0);
  device::v1::ServiceMetrics service;
  service.set_pids(7);
  EXPECT_EQ(service_metrics()[7].read(service), 7.0);
  EXPECT_TRUE(is_metric("pids"));
  EXPECT_FALSE(is_metric("nothing"));
}

}  // namespace
}  // namespace flock::domain

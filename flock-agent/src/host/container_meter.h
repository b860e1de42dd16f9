// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/time.h"
#include "domain/plan.h"
#include "flock/device/v1/device.pb.h"

namespace flock::agent {

// Reads what the kernel shows of running containers: their cgroup's files, v1 or v2, and their
// process's network. `root` as for HostMeter.
class ContainerMeter {
 public:
  explicit ContainerMeter(std::string root) : root_(std::move(root)) {}
  // One entry for each running container whose process is still its own. Rates are over the time
  // since the call before.
  std::vector<device::v1::ServiceMetrics> sample(const std::vector<Observed>& containers,
                                                 SteadyPoint now);

 private:
  struct Usage {
    SteadyPoint at;
    std::int64_t cpu_us = 0;
  };
  bool read(const Observed& container, SteadyPoint now, device::v1::ServiceMetrics& out);
  void read_cpu(const Observed& container, std::int64_t cpu_us, SteadyPoint now,
                device::v1::ServiceMetrics& out);
  void read_network(int pid, device::v1::ServiceMetrics& out) const;

  std::string root_;
  std::map<std::string, Usage> before_, seen_;  // by container id
};

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "flock/device/v1/device.pb.h"

namespace flock::agent {

// Reads what the kernel shows of this machine. `root` is "" or the folder that holds proc/ and
// sys/; `disk` is a path on the file system to tell of. What cannot be read is absent.
class HostMeter {
 public:
  HostMeter(std::string root, std::string disk);
  ~HostMeter();
  // Rates are over the time since the call before; the first has none.
  device::v1::HostMetrics sample();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flock::agent

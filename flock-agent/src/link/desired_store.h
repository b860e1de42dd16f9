// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "flock/device/v1/device.pb.h"

namespace flock::agent {

// The last desired state, on disk with its checksum, so that a device converges without the cloud.
// Written only when it changed.
class DesiredStore {
 public:
  explicit DesiredStore(std::string path) : path_(std::move(path)) {}
  // A damaged file is moved aside and counts as none.
  device::v1::DesiredState load();
  // Throws Error{kUnavailable} when the disk is full; the old file stays.
  void save(const device::v1::DesiredState& desired);

 private:
  std::string path_;
};

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
// Private to this room: what the uplink threw away, until it was told.
#pragma once

#include <string>
#include <string_view>

#include "flock/device/v1/device.pb.h"
#include "link/uplink.h"

namespace flock::agent {

class LostLog {
 public:
  explicit LostLog(std::string directory) : directory_(std::move(directory)) {}
  void load();  // a damaged file is logged and counts for nothing
  void save();  // when something changed; a full disk is logged, the next call tries again
  void add(Upward kind, std::string_view payload);

  const Lost& counts() const { return counts_; }
  // Gaps that nobody was told of: a LogBatch, or "".
  std::string untold() const;
  // `told`: what untold() gave.
  void forget(const std::string& told);

 private:
  void add_lines(const device::v1::LogStream& stream);

  std::string directory_;
  Lost counts_;
  device::v1::LogBatch gaps_;
  bool changed_ = false;
};

}  // namespace flock::agent

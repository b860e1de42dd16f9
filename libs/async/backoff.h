// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/time.h"

namespace flock {

// Exponential backoff with full jitter: the n-th delay is uniform in [0, min(max, first * 2^n)), so
// that a crowd of devices that lost one server comes back spread out.
class Backoff {
 public:
  Backoff(Duration first, Duration max) : first_(first), max_(max), ceiling_(first) {}
  Duration next();
  void reset() noexcept { ceiling_ = first_; }

 private:
  Duration first_, max_, ceiling_;
};

}  // namespace flock

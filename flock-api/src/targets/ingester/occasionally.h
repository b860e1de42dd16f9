// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <utility>

#include "base/time.h"

namespace flock::targets::ingester {

// Counts what must not fill the log, and says when it may be told: at once, then every 10 s.
class Occasionally {
 public:
  // How often it happened since it was told last; 0: not now.
  std::int64_t count(std::int64_t times = 1) {
    waiting_ += times;
    total_ += times;
    const SteadyPoint now = std::chrono::steady_clock::now();
    if (waiting_ == 0 || now < next_) return 0;
    next_ = now + std::chrono::seconds(10);
    return std::exchange(waiting_, 0);
  }
  std::int64_t total() const noexcept { return total_; }

 private:
  SteadyPoint next_{};
  std::int64_t waiting_ = 0, total_ = 0;
};

}  // namespace flock::targets::ingester

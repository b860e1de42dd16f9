// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "async/task.h"
#include "metrics/metrics.h"
#include "targets/ingester/occasionally.h"

namespace flock::targets::ingester {

// A message that will never be understood.
struct Poison {
  std::string topic, payload, reason;
};

// A bounded folder of what could not be taken: one file a message, a line of JSON {topic, reason,
// received_at, bytes}, then the first 64 KiB of the payload. The oldest go first. It never stands
// in anybody's way: what cannot be written is counted and let go.
class Quarantine {
 public:
  // `counter` counts them.
  Quarantine(std::string folder, metrics::Counter counter)
      : folder_(std::move(folder)), quarantined_(counter) {}
  Task<void> put(std::vector<Poison> messages);
  std::int64_t count() const noexcept { return seen_.total(); }

 private:
  static void write(const std::string& folder, const std::vector<Poison>& messages);
  const std::string folder_;
  Occasionally seen_;
  metrics::Counter quarantined_;
};

// Cuts `poison` from `payload`, which may be large.
Poison make_poison(std::string_view topic, std::string_view payload, std::string reason);

}  // namespace flock::targets::ingester

// SPDX-License-Identifier: Apache-2.0
// Whether a device is there, from messages that may come late, twice or out of order.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/time.h"

namespace flock::domain {

// What is known of a device. Numbers are `seq` of its messages, which grow over its whole life.
struct Presence {
  bool online = false;
  std::int64_t seq = 0;      // of the newest message that said something about presence
  std::int64_t session = 0;  // of the newest hello: where the present connection began
  std::int64_t before = 0;   // of the hello before that one
  bool operator==(const Presence&) const = default;
};

enum class Sign {
  kReport,   // it reported
  kHello,    // it connected
  kGoodbye,  // it disconnects because it was stopped
  kLost,     // the last will, which was numbered before the hello of its connection
};

// Takes a sign into account; true when the device came or went by it. A goodbye of an earlier
// connection, a last will of one before the present connection, and a report that is older than
// what the device went with change nothing.
bool take_sign(Presence& presence, Sign sign, std::int64_t seq);

// The reason in events and in the time series.
std::string_view reason_of(Sign sign);
inline constexpr std::string_view kSilent = "silent";

// After which silence a device that reports at least every `keep_alive` counts as offline, even if
// the broker never told: three of them.
Duration silent_after(Duration keep_alive);

}  // namespace flock::domain

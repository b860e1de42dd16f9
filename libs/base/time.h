// SPDX-License-Identifier: Apache-2.0
// Time on the wire (docs: contracts, 1): RFC 3339 UTC in JSON, Unix milliseconds in protobuf, "90s"
// durations.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace flock {

using Duration = std::chrono::milliseconds;
using TimePoint = std::chrono::time_point<std::chrono::system_clock, Duration>;
using SteadyPoint = std::chrono::steady_clock::time_point;

// The source of wall time for decisions; tests hand in FakeClock (libs/testing).
class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint now() const = 0;
};
const Clock& system_clock();

std::int64_t to_unix_ms(TimePoint time) noexcept;
TimePoint from_unix_ms(std::int64_t milliseconds) noexcept;

// "2026-11-23T10:00:00.250Z"; always UTC, always milliseconds.
std::string to_rfc3339(TimePoint time);
// Accepts any offset and fraction; throws Error{kInvalidArgument}.
TimePoint parse_rfc3339(std::string_view text);

// "250ms", "90s", "1h30m"; units ms, s, m, h, d. Throws Error{kInvalidArgument}. Never negative.
Duration parse_duration(std::string_view text);
// The shortest exact form: 90000ms -> "90s", 3600s -> "1h", 0 -> "0s".
std::string to_string(Duration duration);

}  // namespace flock

// SPDX-License-Identifier: Apache-2.0
// What every implementation of TimeSeries does the same way.
#pragma once

#include <compare>
#include <cstdint>
#include <string>

#include "stores/time_series/time_series.h"

namespace flock::stores {

inline constexpr std::int64_t kHourMs = 3'600'000, kDayMs = 24 * kHourMs;

// The day since 1970 that a row is filed under. A clock that is far off must not make a partition
// for each day of the century: such rows are filed under kStrayDays + the day of their arrival, and
// found wherever their time belongs.
inline constexpr std::int64_t kStrayDays = 100'000;
std::uint32_t filed_day(std::int64_t at_ms, std::int64_t now_ms);
// Whether a row that is filed under `day` belongs to a day that ended before `before_ms`.
bool expired(std::uint32_t day, std::int64_t before_ms);

// What of a time that was asked for rows can lie in: none before 1970, none after kEndOfTime.
inline constexpr std::int64_t kEndOfTime = 1'000'000'000'000'000;
struct Window {
  std::int64_t from_ms = 0, to_ms = 0;
};
Window bounded(std::int64_t from_ms, std::int64_t to_ms);

// The place of a row in the order of logs(); also what makes two rows the same one.
struct LogPlace {
  std::int64_t at_ms = 0;
  std::string device, service;
  std::int64_t epoch = 0, number = 0;
  int gap = 0;
  auto operator<=>(const LogPlace&) const = default;
};
LogPlace place_of(const LogRow& row);
std::string cursor_of(const LogRow& row);
// Throws Error{kInvalidArgument} for what cursor_of() did not make.
LogPlace parse_cursor(std::string_view cursor);

// Throws Error{kInvalidArgument}: without an organization, with lists or limits out of bounds.
void check(const Subject& subject, std::size_t limit);
void check(const MetricQuery& query);
void check(const SummaryQuery& query);
void check(const OperatorQuery& query);
void check(const LogQuery& query);

}  // namespace flock::stores

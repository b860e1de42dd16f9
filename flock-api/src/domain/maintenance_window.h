// SPDX-License-Identifier: Apache-2.0
// When devices may begin to update, by the clock on the wall where they stand. Time zones are those
// of the IANA database (RFC 6557) that the operating system keeps.
#pragma once

#include <bitset>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"

namespace flock::domain {

// Opens on each of `days` at `from`. A local time that a clock change leaves out does not come, and
// one that it repeats comes twice.
struct MaintenanceWindow {
  std::bitset<7> days{0x7f};  // on which it opens; bit 0 is Monday
  int from = 0, to = 0;   // minutes after midnight, 0..1440; `to` before `from` is of the next day
  std::string time_zone;  // "Europe/Oslo"; "" where each device is
};

inline constexpr std::size_t kMaxWindows = 20;

bool is_time_zone(const std::string& name);
// "22:30" -> minutes after midnight; "24:00" is 1440. Nothing for what is none.
std::optional<int> parse_time_of_day(const std::string& text);
std::string time_of_day(int minutes);

// Whether one of `windows` is open in the zone `device_zone`; without windows it always is. A zone
// that nobody knows counts as UTC.
bool is_open(const std::vector<MaintenanceWindow>& windows, const std::string& device_zone,
             TimePoint now);
// When the next one opens, later than `now`; nothing when none does within four weeks.
std::optional<TimePoint> next_opening(const std::vector<MaintenanceWindow>& windows,
                                      const std::string& device_zone, TimePoint now);

}  // namespace flock::domain

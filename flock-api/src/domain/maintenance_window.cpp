// SPDX-License-Identifier: Apache-2.0
#include "domain/maintenance_window.h"

#include <date/tz.h>

#include <algorithm>
#include <cstdio>
#include <stdexcept>

namespace flock::domain {
namespace {

constexpr int kDay = 24 * 60;  // minutes
constexpr int kDaysAhead = 28;

using Local = date::local_time<std::chrono::milliseconds>;

const date::time_zone* find_zone(const std::string& name) {
  try {
    return date::locate_zone(name);
  } catch (const std::runtime_error&) {
    return nullptr;
  }
}

const date::time_zone* zone_of(const MaintenanceWindow& window, const std::string& device_zone) {
  const std::string& name = window.time_zone.empty() ? device_zone : window.time_zone;
  const date::time_zone* zone = name.empty() ? nullptr : find_zone(name);
  return zone != nullptr ? zone : date::locate_zone("Etc/UTC");
}

bool opens_on(const MaintenanceWindow& window, date::local_days day) {
  return window.days.test(date::weekday(day).iso_encoding() - 1);
}

bool is_open_at(const MaintenanceWindow& window, Local now) {
  const auto today = date::floor<date::days>(now);
  const auto minute = std::chrono::duration_cast<std::chrono::minutes>(now - today).count();
  if (window.from < window.to)
    return opens_on(window, today) && minute >= window.from && minute < window.to;
  return (opens_on(window, today) && minute >= window.from) ||
         (opens_on(window, today - date::days(1)) && minute < window.to);
}

// Where a clock that is put back comes into the window a second time.
std::optional<TimePoint> reopening(const MaintenanceWindow& window, const date::time_zone* zone,
                                   TimePoint now, TimePoint limit) {
  for (auto change = zone->get_info(now).end; change < limit; change = zone->get_info(change).end) {
    if (is_open_at(window, zone->to_local(TimePoint(change))) &&
        !is_open_at(window, zone->to_local(TimePoint(change) - Duration(1))))
      return TimePoint(change);
  }
  return std::nullopt;
}

std::optional<TimePoint> next_opening_of(const MaintenanceWindow& window,
                                         const std::string& device_zone, TimePoint now) {
  const date::time_zone* zone = zone_of(window, device_zone);
  const auto today = date::floor<date::days>(zone->to_local(now));
  for (int i = 0; i <= kDaysAhead; ++i) {
    const date::local_days day = today + date::days(i);
    if (!opens_on(window, day)) continue;
    const Local opening = day + std::chrono::minutes(window.from);
    // Where the clock is put forward over it, this is the moment after the gap.
    const TimePoint at = zone->to_sys(opening, date::choose::earliest);
    if (at > now && is_open_at(window, zone->to_local(at)))
      return reopening(window, zone, now, at).value_or(at);
  }
  return std::nullopt;
}

}  // namespace

bool is_time_zone(const std::string& name) { return !name.empty() && find_zone(name) != nullptr; }

std::optional<int> parse_time_of_day(const std::string& text) {
  const auto digit = [&](std::size_t at) { return text[at] >= '0' && text[at] <= '9'; };
  if (text.size() != 5 || text[2] != ':' || !digit(0) || !digit(1) || !digit(3) || !digit(4))
    return std::nullopt;
  const int hour = std::stoi(text.substr(0, 2)), minute = std::stoi(text.substr(3));
  const int total = hour * 60 + minute;
  if (minute > 59 || total > kDay) return std::nullopt;
  return total;
}

std::string time_of_day(int minutes) {
  char text[16];
  std::snprintf(text, sizeof text, "%02d:%02d", minutes / 60, minutes % 60);
  return text;
}

bool is_open(const std::vector<MaintenanceWindow>& windows, const std::string& device_zone,
             TimePoint now) {
  return windows.empty() ||
         std::any_of(windows.begin(), windows.end(), [&](const MaintenanceWindow& window) {
           return is_open_at(window, zone_of(window, device_zone)->to_local(now));
         });
}

std::optional<TimePoint> next_opening(const std::vector<MaintenanceWindow>& windows,
                                      const std::string& device_zone, TimePoint now) {
  std::optional<TimePoint> next;
  for (const MaintenanceWindow& window : windows) {
    const auto at = next_opening_of(window, device_zone, now);
    if (at && (!next || *at < *next)) next = at;
  }
  return next;
}

}  // namespace flock::domain

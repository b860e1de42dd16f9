// SPDX-License-Identifier: Apache-2.0
#include "base/time.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <limits>

#include "base/error.h"

namespace flock {
namespace {

class SystemClock final : public Clock {
 public:
  TimePoint now() const override {
    return std::chrono::time_point_cast<Duration>(std::chrono::system_clock::now());
  }
};

struct Unit {
  std::string_view name;
  std::int64_t milliseconds;
};
// Longest first: to_string takes the first that divides.
constexpr std::array kUnits = {Unit{"d", 86'400'000}, Unit{"h", 3'600'000}, Unit{"m", 60'000},
                               Unit{"s", 1000}, Unit{"ms", 1}};

[[noreturn]] void bad_time(std::string_view text) {
  throw Error(Code::kInvalidArgument, "not an RFC 3339 time")
      .with("value", std::string(text.substr(0, 64)))
      .hint("write it like 2026-11-23T10:00:00Z");
}

[[noreturn]] void bad_duration(std::string_view text) {
  throw Error(Code::kInvalidArgument, "not a duration")
      .with("value", std::string(text.substr(0, 64)))
      .hint("write a number with a unit: 250ms, 90s, 15m, 1h30m, 7d");
}

// Reads exactly `count` digits at `at`.
int digits(std::string_view text, std::size_t at, std::size_t count) {
  int value = 0;
  if (at + count > text.size()) bad_time(text);
  for (std::size_t i = at; i < at + count; ++i) {
    if (text[i] < '0' || text[i] > '9') bad_time(text);
    value = value * 10 + (text[i] - '0');
  }
  return value;
}

// At least `width` digits, and what stands behind them. Not by printf: lists hold thousands of
// times.
void append_number(std::string& out, std::int64_t value, std::size_t width, char behind) {
  char text[24];
  const auto size =
      static_cast<std::size_t>(std::to_chars(text, text + sizeof text, value).ptr - text);
  out.append(width - std::min(width, size), '0').append(text, size) += behind;
}

void expect(std::string_view text, std::size_t at, std::string_view allowed) {
  if (at >= text.size() || allowed.find(text[at]) == std::string_view::npos) bad_time(text);
}

}  // namespace

const Clock& system_clock() {
  static const SystemClock clock;
  return clock;
}

std::int64_t to_unix_ms(TimePoint time) noexcept { return time.time_since_epoch().count(); }
TimePoint from_unix_ms(std::int64_t milliseconds) noexcept {
  return TimePoint(Duration(milliseconds));
}

std::string to_rfc3339(TimePoint time) {
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(time - day);
  std::string text;
  text.reserve(24);
  append_number(text, static_cast<int>(date.year()), 4, '-');
  append_number(text, static_cast<unsigned>(date.month()), 2, '-');
  append_number(text, static_cast<unsigned>(date.day()), 2, 'T');
  append_number(text, clock.hours().count(), 2, ':');
  append_number(text, clock.minutes().count(), 2, ':');
  append_number(text, clock.seconds().count(), 2, '.');
  append_number(text, clock.subseconds().count(), 3, 'Z');
  return text;
}

TimePoint parse_rfc3339(std::string_view text) {
  using namespace std::chrono;
  expect(text, 4, "-");
  expect(text, 7, "-");
  expect(text, 10, "Tt ");
  expect(text, 13, ":");
  expect(text, 16, ":");
  const year_month_day date(year(digits(text, 0, 4)),
                            month(static_cast<unsigned>(digits(text, 5, 2))),
                            day(static_cast<unsigned>(digits(text, 8, 2))));
  const int hour = digits(text, 11, 2), minute = digits(text, 14, 2), second = digits(text, 17, 2);
  if (!date.ok() || hour > 23 || minute > 59 || second > 60) bad_time(text);

  std::size_t at = 19;
  int fraction = 0;
  if (at < text.size() && text[at] == '.') {
    int scale = 100;
    std::size_t first = ++at;
    for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at, scale /= 10) {
      fraction += (text[at] - '0') * scale;
    }
    if (at == first) bad_time(text);
  }
  expect(text, at, "Zz+-");
  minutes offset(0);
  if (text[at] == '+' || text[at] == '-') {
    expect(text, at + 3, ":");
    const int oh = digits(text, at + 1, 2), om = digits(text, at + 4, 2);
    if (oh > 23 || om > 59) bad_time(text);
    offset = hours(oh) + minutes(om);
    if (text[at] == '-') offset = -offset;
    at += 5;
  }
  if (at + 1 != text.size()) bad_time(text);
  return TimePoint(sys_days(date).time_since_epoch() + hours(hour) + minutes(minute) +
                   seconds(second) + milliseconds(fraction) - offset);
}

Duration parse_duration(std::string_view text) {
  std::int64_t total = 0;
  std::string_view rest = text;
  if (rest.empty()) bad_duration(text);
  while (!rest.empty()) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
    if (error != std::errc() || number < 0) bad_duration(text);
    rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
    const std::string_view name = rest.substr(0, rest.find_first_of("0123456789-+"));
    const Unit* unit = nullptr;
    for (const Unit& candidate : kUnits) {
      if (candidate.name == name) unit = &candidate;
    }
    std::int64_t part = 0;
    if (unit == nullptr || __builtin_mul_overflow(number, unit->milliseconds, &part) ||
        __builtin_add_overflow(total, part, &total)) {
      bad_duration(text);
    }
    rest.remove_prefix(name.size());
  }
  return Duration(total);
}

std::string to_string(Duration duration) {
  if (duration.count() == 0) return "0s";
  for (const Unit& unit : kUnits) {
    if (duration.count() % unit.milliseconds == 0) {
      return std::to_string(duration.count() / unit.milliseconds) + std::string(unit.name);
    }
  }
  return std::to_string(duration.count()) + "ms";
}

}  // namespace flock

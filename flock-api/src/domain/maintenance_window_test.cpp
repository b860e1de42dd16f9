// SPDX-License-Identifier: Apache-2.0
#include "domain/maintenance_window.h"

#include <gtest/gtest.h>

namespace flock::domain {
namespace {

TimePoint at(const char* time) { return parse_rfc3339(time); }
std::string text(std::optional<TimePoint> time) { return time ? to_rfc3339(*time) : "never"; }

constexpr int kHour = 60;

TEST(MaintenanceWindow, IsOpenByTheDevicesOwnClock) {
  const std::vector<MaintenanceWindow> night{{.from = 2 * kHour, .to = 5 * kHour}};
  const TimePoint now = at("2026-01-14T01:30:00Z");
  EXPECT_TRUE(is_open(night, "Europe/Oslo", now)) << "02:30 there";
  EXPECT_FALSE(is_open(night, "Etc/UTC", now));
  EXPECT_FALSE(is_open(night, "America/New_York", now));
  EXPECT_FALSE(is_open(night, "Atlantis/Capital", now)) << "what nobody knows is UTC";
  EXPECT_FALSE(is_open(night, "", now));
  EXPECT_TRUE(is_open({}, "", now)) << "no windows: always";
  EXPECT_EQ(text(next_opening(night, "America/New_York", now)), "2026-01-14T07:00:00.000Z");
  EXPECT_EQ(text(next_opening(night, "Europe/Oslo", now)), "2026-01-15T01:00:00.000Z");
  EXPECT_EQ(text(next_opening({}, "", now)), "never");
  const std::vector<MaintenanceWindow> oslo{
      {.from = 2 * kHour, .to = 5 * kHour, .time_zone = "Europe/Oslo"}};
  EXPECT_TRUE(is_open(oslo, "America/New_York", now)) << "the window says where";
}

TEST(MaintenanceWindow, OverMidnightBelongsToTheDayOnWhichItOpens) {
  const std::vector<MaintenanceWindow> friday{
      {.days = 1 << 4, .from = 22 * kHour, .to = 4 * kHour}};
  const char* zone = "Europe/Oslo";
  EXPECT_FALSE(is_open(friday, zone, at("2026-01-16T20:59:00Z")));  // Friday, 21:59
  EXPECT_TRUE(is_open(friday, zone, at("2026-01-16T21:00:00Z")));
  EXPECT_TRUE(is_open(friday, zone, at("2026-01-17T02:59:00Z")));  // Saturday, 03:59
  EXPECT_FALSE(is_open(friday, zone, at("2026-01-17T03:00:00Z")));
  EXPECT_FALSE(is_open(friday, zone, at("2026-01-16T01:00:00Z"))) << "Thursday's night";
  EXPECT_EQ(text(next_opening(friday, zone, at("2026-01-17T01:00:00Z"))),
            "2026-01-23T21:00:00.000Z");
}

// Oslo: 2026-03-29 02:00 becomes 03:00, and 2026-10-25 03:00 becomes 02:00.
TEST(MaintenanceWindow, KeepsToTheWallWhenClocksChange) {
  const char* zone = "Europe/Oslo";
  const std::vector<MaintenanceWindow> night{{.from = 4 * kHour, .to = 5 * kHour}};
  EXPECT_EQ(text(next_opening(night, zone, at("2026-03-28T12:00:00Z"))),
            "2026-03-29T02:00:00.000Z");
  EXPECT_EQ(text(next_opening(night, zone, at("2026-03-27T12:00:00Z"))),
            "2026-03-28T03:00:00.000Z");
  // A window that the gap swallows does not open that night; one that it cuts opens after it.
  const std::vector<MaintenanceWindow> in_gap{{.from = 130, .to = 170}},
      over{{.from = 130, .to = 240}};
  EXPECT_EQ(text(next_opening(in_gap, zone, at("2026-03-28T12:00:00Z"))),
            "2026-03-30T00:10:00.000Z");
  EXPECT_EQ(text(next_opening(over, zone, at("2026-03-28T12:00:00Z"))), "2026-03-29T01:00:00.000Z");
  // The hour that comes twice is open twice.
  const std::vector<MaintenanceWindow> twice{{.from = 2 * kHour, .to = 3 * kHour}};
  for (const char* time : {"2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"})
    EXPECT_TRUE(is_open(twice, zone, at(time))) << time;
  EXPECT_FALSE(is_open(twice, zone, at("2026-10-25T02:00:00Z")));
}

// Ten minutes at a time through a year: an opening is where closed becomes open, and nowhere else.
TEST(MaintenanceWindow, OpensNextWhereItSaysItDoes) {
  const std::vector<MaintenanceWindow> windows{
      {.days = 0x15, .from = 1 * kHour + 30, .to = 3 * kHour + 30},
      {.days = 0x62, .from = 23 * kHour, .to = 2 * kHour + 30},
      {.from = 0, .to = kHour, .time_zone = "Asia/Kathmandu"}};
  for (const char* zone : {"Europe/Oslo", "Australia/Lord_Howe", "America/Sao_Paulo", ""}) {
    TimePoint next = at("2025-12-30T00:00:00Z");
    for (TimePoint now = next; now < at("2027-01-01T00:00:00Z"); now += Duration(600'000)) {
      if (now >= next) next = next_opening(windows, zone, now).value_or(now + Duration(1));
      ASSERT_TRUE(is_open(windows, zone, next)) << zone << " " << text(next);
      const bool was_open = is_open(windows, zone, now),
                 is_now = is_open(windows, zone, now + Duration(600'000));
      if (!was_open && is_now)
        ASSERT_LE(next, now + Duration(600'000)) << zone << " " << to_rfc3339(now);
    }
  }
}

TEST(MaintenanceWindow, ReadsTimesAndZones) {
  EXPECT_EQ(parse_time_of_day("00:00"), 0);
  EXPECT_EQ(parse_time_of_day("23:59"), 1439);
  EXPECT_EQ(parse_time_of_day("24:00"), 1440);
  for (const char* bad : {"", "1:00", "24:01", "12:60", "12-00", "ab:cd", "12:000", "-1:00"})
    EXPECT_FALSE(parse_time_of_day(bad)) << bad;
  EXPECT_EQ(time_of_day(90), "01:30");
  EXPECT_TRUE(is_time_zone("Europe/Oslo"));
  for (const char* bad : {"", "Oslo", "../../etc/passwd", "Europe/Oslo ", "/etc/localtime"})
    EXPECT_FALSE(is_time_zone(bad)) << bad;
}

}  // namespace
}  // namespace flock::domain

// SPDX-License-Identifier: Apache-2.0
#include "stores/time_series/sql.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "stores/time_series/rules.h"
#include "testing/run_task.h"

namespace flock::stores {
namespace {

using clickhouse::literal;
using clickhouse::Statement;
using flock::testing::code_of;

TEST(ClickHouseSql, ALiteralIsPrintableAndEndsWhereItShould) {
  EXPECT_EQ(literal(""), "''");
  EXPECT_EQ(literal("gw-1"), "'gw-1'");
  EXPECT_EQ(literal("it's"), "'it\\x27s'");
  EXPECT_EQ(literal("\\"), "'\\x5c'");
  EXPECT_EQ(literal(std::string_view("a\0\n\xff", 4)), "'a\\x00\\x0a\\xff'");
}

TEST(ClickHouseSql, ValuesStayInTheirPlaces) {
  Statement sql("SELECT {a} FROM t WHERE b IN ({list})");
  sql.add(" AND c > {n}").text("a", "{n}' OR 1 --").list("list", {"x", "{a}"}).number("n", -5);
  EXPECT_EQ(sql.str(), "SELECT '{n}\\x27 OR 1 --' FROM t WHERE b IN ('x', '{a}') AND c > -5");
}

TEST(ClickHouseSql, NamesAreNames) {
  Statement sql("USE {db}");
  for (const char* bad : {"", "1a", "a-b", "a`b", "a b", "a.b", "\xc3\xa4"})
    EXPECT_EQ(code_of([&] { sql.name("db", bad); }), Code::kInvalidArgument) << bad;
  EXPECT_EQ(sql.name("db", "Flock_2").str(), "USE Flock_2");
}

TEST(TimeSeriesRules, ACursorIsTakenBackAndNothingElseIs) {
  LogRow row;
  row.origin = {"org", "fleet", std::string("d\0'", 3), ""};
  row.at_ms = -5;
  row.epoch = INT64_MAX;
  row.number = 7;
  row.gap = 3;
  const std::string cursor = cursor_of(row);
  EXPECT_TRUE(parse_cursor(cursor) == place_of(row));
  for (std::size_t cut = 0; cut < cursor.size(); ++cut)
    EXPECT_EQ(code_of([&] { parse_cursor(std::string_view(cursor).substr(0, cut)); }),
              Code::kInvalidArgument);
  for (const char* bad : {"!", "AAAA", "' OR 1=1"})
    EXPECT_EQ(code_of([&] { parse_cursor(bad); }), Code::kInvalidArgument);
  EXPECT_EQ(code_of([&] { parse_cursor(cursor + "AAAA"); }), Code::kInvalidArgument);
}

TEST(TimeSeriesRules, AClockThatIsFarOffMakesNoPartitionOfItsOwn) {
  const std::int64_t now = 20'000 * kDayMs + 5, year = 365 * kDayMs;
  EXPECT_EQ(filed_day(now, now), 20'000u);
  EXPECT_EQ(filed_day(now - 40 * kDayMs, now), 19'960u);
  for (const std::int64_t stray : {now + year, now - year, INT64_MAX, INT64_MIN, std::int64_t{-1}})
    EXPECT_EQ(filed_day(stray, now), 120'000u) << stray;
  EXPECT_TRUE(expired(19'999, now));
  EXPECT_TRUE(expired(119'999, now));
  EXPECT_FALSE(expired(20'000, now));  // a day that is not over
  EXPECT_FALSE(expired(120'000, now));
}

TEST(ClickHouseOptions, AreCheckedBeforeAnythingIsSent) {
  check(ClickHouseOptions{});
  for (const char* bad : {"", "127.0.0.1:8123", "tcp://127.0.0.1", "http://127.0.0.1/?a=b"})
    EXPECT_EQ(code_of([&] { check(ClickHouseOptions{.url = bad}); }), Code::kInvalidArgument)
        << bad;
  EXPECT_EQ(code_of([&] { check(ClickHouseOptions{.database = "a;DROP"}); }),
            Code::kInvalidArgument);
}

}  // namespace
}  // namespace flock::stores

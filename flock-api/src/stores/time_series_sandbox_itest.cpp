// SPDX-License-Identifier: Apache-2.0
// Operators' own queries, on a real ClickHouse.
#include "stores/time_series/sandbox.h"

#include <gtest/gtest.h>

#include "async/loop.h"
#include "base/error.h"
#include "base/id.h"
#include "net/http_client.h"
#include "stores/time_series_itest.h"

namespace flock::stores {
namespace {

using namespace itest;

class SandboxOnClickHouse : public TimeSeriesContract {};
INSTANTIATE_TEST_SUITE_P(Stores, SandboxOnClickHouse, ::testing::Values("clickhouse"));

// What an operator asks sees the rows of his organization in his window, whatever he writes.
TEST_P(SandboxOnClickHouse, AnOperatorsQuerySeesHisOrganizationOnly) {
  check([&](TimeSeries& store) -> Task<void> {
    const std::int64_t from = noon();
    const Tenant other;
    co_await insert(
        store, {tenant.metric("a", "load_1m", from, 1), tenant.metric("b", "load_1m", from + 1, 2),
                tenant.metric("a", "load_1m", from - 1, 1000),
                tenant.metric("a", "load_1m", from + 1000, 1000),
                other.metric("a", "load_1m", from, 5000)});
    co_await insert(store, {tenant.metric("b", "load_1m", from + 1, 2)});  // again
    co_await insert(
        store, {other.line("a", 1, from, "secret of others"), tenant.line("a", 1, from, "mine")});
    const auto ask = [&](std::string query) -> Task<OperatorAnswer> {
      return store.ask({tenant.org, std::move(query), from, from + 1000, {"b"}, {"a"}});
    };
    EXPECT_EQ((co_await ask("SELECT sum(value) FROM metrics")).value, 3);
    EXPECT_EQ((co_await ask(
                   "SELECT sum(value) FROM metrics WHERE device IN (SELECT device FROM reached)"))
                  .value,
              2);
    EXPECT_EQ(
        (co_await ask(
             "SELECT sum(value) FROM metrics WHERE device NOT IN (SELECT device FROM reached)"))
            .value,
        1);
    EXPECT_EQ((co_await ask("SELECT sum(value) FROM metrics ANY INNER JOIN (SELECT device FROM "
                            "waiting) USING (device)"))
                  .value,
              1);
    EXPECT_EQ((co_await ask("SELECT count(*) FROM logs WHERE text LIKE '%secret%' OR 1 = 1")).value,
              1);
    EXPECT_EQ((co_await ask("SELECT count() FROM (SELECT m.device AS d, max(m.value) AS v FROM "
                            "metrics AS m GROUP BY d) WHERE v > 1"))
                  .value,
              1);
    EXPECT_EQ(
        (co_await ask("SELECT count() + (SELECT count() FROM connectivity) FROM updates")).value,
        0);
    const OperatorAnswer both =
        co_await ask("SELECT quantile(0.95)(value) AS p, uniqExact(device) FROM metrics");
    EXPECT_EQ(both.sample, 2);
    EXPECT_EQ((co_await ask("SELECT avg(value) FROM metrics WHERE name = 'none'")).value,
              std::nullopt);
    EXPECT_EQ((co_await ask("SELECT value FROM metrics WHERE name = 'none'")).value, std::nullopt);
    EXPECT_EQ((co_await ask("SELECT 1 / 0 FROM metrics LIMIT 1")).value, std::nullopt);
  });
}

TEST_P(SandboxOnClickHouse, AnOperatorsQueryThatCannotBeAnsweredSaysWhy) {
  check([&](TimeSeries& store) -> Task<void> {
    const std::int64_t from = noon();
    co_await insert(
        store, {tenant.metric("a", "load_1m", from, 1), tenant.metric("b", "load_1m", from, 2)});
    const auto refusal = [&](std::string query) -> Task<std::string> {
      try {
        co_await store.ask({tenant.org, std::move(query), from, from + 1000, {}, {}});
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Code::kInvalidArgument) << error.describe();
        co_return error.message();
      }
      co_return "";
    };
    EXPECT_EQ(co_await refusal("SELECT value FROM metrics"),
              "the query must give one row, not several");
    EXPECT_EQ(co_await refusal("SELECT name FROM metrics LIMIT 1"),
              "the query must give numbers, not String");
    EXPECT_EQ(co_await refusal("SELECT 1, 2, 3 FROM metrics LIMIT 1"),
              "the query must give one column, or two: the value, and on how many devices");
    for (const char* bad : {"SELECT value FROM logs", "SELECT sum(name) FROM metrics",
                            "SELECT avg(value) FROM metrics GROUP",
                            "SELECT value + name FROM metrics", "SELECT avg( FROM metrics)"}) {
      const std::string why = co_await refusal(bad);
      EXPECT_TRUE(why.starts_with("ClickHouse cannot run the query: ") ||
                  why.starts_with("the query cannot be run: "))
          << bad << ": " << why;
      EXPECT_EQ(why.find("e.what"), std::string::npos) << why;
      EXPECT_EQ(why.find("version"), std::string::npos) << why;
    }
  });
}

// The second wall: if the first one let something through, the server would not.
TEST_P(SandboxOnClickHouse, TheSandboxIsReadOnlyAndHeldToItsLimits) {
  run_task(
      [&]() -> Task<void> {
        net::HttpClient http(co_await asio::this_coro::executor, {});
        const auto answer = [&](std::string query) -> Task<std::string> {
          net::Headers headers;
          headers.add("X-ClickHouse-User", options().username);
          headers.add("X-ClickHouse-Key", options().password);
          const auto response = co_await http.send(
              "POST", options().url + "/?" + clickhouse::sandbox_settings().substr(1),
              std::move(headers), std::move(query));
          co_return std::to_string(response.status) + " " + response.body;
        };
        EXPECT_EQ(co_await answer("SELECT 1"), "200 1\n");
        EXPECT_FALSE(
            (co_await answer("SELECT 1 SETTINGS max_execution_time = 1000")).starts_with("200"));
        EXPECT_FALSE(
            (co_await answer("SELECT count() FROM (SELECT 1 AS a SETTINGS max_memory_usage = 0)"))
                .starts_with("200"));
        EXPECT_FALSE((co_await answer("SET readonly = 0")).starts_with("200"));
        EXPECT_FALSE((co_await answer("CREATE DATABASE broken_out")).starts_with("200"));
        EXPECT_FALSE(
            (co_await answer("SELECT 1 INTO OUTFILE '/tmp/broken_out'")).starts_with("200"));
        EXPECT_FALSE((co_await answer("SELECT 1; SELECT 2")).starts_with("200"));
        EXPECT_FALSE(
            (co_await answer("SELECT number FROM system.numbers LIMIT 100")).starts_with("200"))
            << "result_rows";
        EXPECT_FALSE((co_await answer("SELECT count() FROM system.numbers")).starts_with("200"))
            << "rows or time";
        EXPECT_FALSE((co_await answer("SELECT length(groupArray(toString(number))) FROM (SELECT "
                                      "number FROM system.numbers LIMIT 40000000)"))
                         .starts_with("200"))
            << "memory";
      },
      Duration(60'000));
}

}  // namespace
}  // namespace flock::stores

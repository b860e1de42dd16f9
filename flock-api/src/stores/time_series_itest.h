// SPDX-License-Identifier: Apache-2.0
// What tests of time series share: a tenant with its rows, and a store of each kind.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "async/loop.h"
#include "base/id.h"
#include "stores/time_series/rules.h"
#include "stores/time_series/time_series.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::stores::itest {

using flock::testing::code_of_task;
using flock::testing::run_task;

// Noon of today, so that a few hours to both sides are one day.
inline std::int64_t noon() {
  return to_unix_ms(system_clock().now()) / kDayMs * kDayMs + 12 * kHourMs;
}

// An organization of its own for each test: all share a server.
struct Tenant {
  std::string org = new_uuid();
  Subject all() const { return {org, {}, {}, {}}; }
  Origin at(std::string device, std::string service = "", std::string fleet = "f") const {
    return {org, std::move(fleet), std::move(device), std::move(service)};
  }
  MetricRow metric(std::string device, std::string name, std::int64_t at_ms, double value) const {
    return {at(std::move(device)), std::move(name), at_ms, value};
  }
  LogRow line(std::string device, std::int64_t number, std::int64_t at_ms, std::string text) const {
    LogRow row;
    row.origin = at(std::move(device), "web");
    row.epoch = 1;
    row.number = number;
    row.at_ms = at_ms;
    row.received_ms = at_ms + 500;
    row.source = 1;
    row.level = 2;
    row.text = std::move(text);
    return row;
  }
  MetricQuery metrics(std::int64_t from_ms, std::int64_t to_ms, Duration step = Duration(0)) const {
    return {all(), {}, from_ms, to_ms, step, 10'000};
  }
  LogQuery lines(std::int64_t from_ms, std::int64_t to_ms) const {
    LogQuery query;
    query.subject = all();
    query.from_ms = from_ms;
    query.to_ms = to_ms;
    return query;
  }
};

inline std::string numbers(const std::vector<LogRow>& rows) {
  std::string out;
  for (const LogRow& row : rows) out += std::to_string(row.number) + " ";
  return out;
}

inline Task<void> insert(TimeSeries& store, std::vector<MetricRow> rows) {
  Rows all;
  all.metrics = std::move(rows);
  co_await store.insert(std::move(all));
}
inline Task<void> insert(TimeSeries& store, std::vector<LogRow> rows) {
  Rows all;
  all.logs = std::move(rows);
  co_await store.insert(std::move(all));
}

class TimeSeriesContract : public ::testing::TestWithParam<const char*> {
 protected:
  static void SetUpTestSuite() {
    if (!flock::testing::require({"clickhouse-server"})) return;
    server = std::make_unique<flock::testing::ClickHouse>();
    server->start();
  }
  static void TearDownTestSuite() { server.reset(); }
  void SetUp() override {
    if (on_clickhouse() && !server) GTEST_SKIP() << "ClickHouse is not installed";
  }
  bool on_clickhouse() const { return std::string(GetParam()) == "clickhouse"; }
  static ClickHouseOptions options() {
    ClickHouseOptions out;
    out.url = server->url();
    out.password = flock::testing::ClickHouse::password();
    return out;
  }
  void check(std::function<Task<void>(TimeSeries&)> body) {
    run_task(
        [&]() -> Task<void> {
          const Executor executor = co_await asio::this_coro::executor;
          const auto store = on_clickhouse() ? make_clickhouse_time_series(executor, options())
                                             : make_memory_time_series();
          co_await body(*store);
        },
        Duration(60'000));
  }
  const Tenant tenant;
  static inline std::unique_ptr<flock::testing::ClickHouse> server;
};

}  // namespace flock::stores::itest

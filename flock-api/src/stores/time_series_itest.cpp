// SPDX-License-Identifier: Apache-2.0
// What every TimeSeries keeps, and what the one on ClickHouse does when the server is away, slow or
// wrongly configured.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "async/loop.h"
#include "base/error.h"
#include "base/id.h"
#include "net/http_server.h"
#include "stores/time_series_itest.h"

namespace flock::stores {
namespace {

using namespace itest;

INSTANTIATE_TEST_SUITE_P(Stores, TimeSeriesContract, ::testing::Values("memory", "clickhouse"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(TimeSeriesContract, TheNewestOfEachSeries) {
  check([&](TimeSeries& store) -> Task<void> {
    const std::int64_t now = noon();
    const Tenant other;
    co_await insert(store, {tenant.metric("a", "cpu_ratio", now - 1000, 0.25),
                            tenant.metric("a", "cpu_ratio", now, 0.5),
                            tenant.metric("a", "load_1m", now - 5000, 3),
                            tenant.metric("b", "cpu_ratio", now - 2000, 1),
                            MetricRow{tenant.at("b", "web"), "pids", now, 7},
                            other.metric("a", "cpu_ratio", now + 5, 9)});
    MetricQuery query = tenant.metrics(now - 4000, 0);
    auto found = co_await store.latest(query);
    EXPECT_EQ(found.size(), 3u);
    if (found.size() != 3) co_return;
    EXPECT_EQ(found[0].device + found[0].service + found[0].name, "acpu_ratio");
    EXPECT_EQ(found[0].at_ms, now);
    EXPECT_EQ(found[0].min, 0.5);
    EXPECT_EQ(found[0].avg, 0.5);
    EXPECT_EQ(found[0].count, 1);
    EXPECT_EQ(found[1].device + found[1].service + found[1].name, "bcpu_ratio");
    EXPECT_EQ(found[2].device + found[2].service + found[2].name, "bwebpids");
    query.names = {"pids", "nothing"};
    found = co_await store.latest(query);
    EXPECT_EQ(found.size(), 1u);
    query.subject.services = {"db"};
    EXPECT_TRUE((co_await store.latest(query)).empty());
  });
}

TEST_P(TimeSeriesContract, TheSameRowsAgainCountOnce) {
  check([&](TimeSeries& store) -> Task<void> {
    const std::int64_t from = noon();
    std::vector<MetricRow> rows;
    for (int i = 0; i < 100; ++i)
      rows.push_back(tenant.metric("a", "load_1m", from + std::int64_t{i} * 1000, i));
    for (int i = 0; i < 3; ++i) co_await insert(store, rows);
    co_await insert(store, {rows[3], rows[3]});
    const auto found = co_await store.range(tenant.metrics(from, from + 100'000, Duration(10'000)));
    EXPECT_EQ(found.size(), 10u);
    for (std::size_t i = 0; i < found.size(); ++i) {
      const double first = static_cast<double>(i) * 10;
      EXPECT_EQ(found[i].count, 10);
      EXPECT_EQ(found[i].min, first);
      EXPECT_EQ(found[i].max, first + 9);
      EXPECT_DOUBLE_EQ(found[i].avg, first + 4.5);
    }
    std::vector<LogRow> lines;
    for (int i = 0; i < 20; ++i) lines.push_back(tenant.line("a", i, from, "line"));
    for (int i = 0; i < 3; ++i) co_await insert(store, lines);
    EXPECT_EQ((co_await store.logs(tenant.lines(from, from + 1))).rows.size(), 20u);
    EXPECT_EQ((co_await store.arrived(tenant.lines(0, 0), from)).size(), 20u);
    for (int i = 0; i < 3; ++i) {
      Rows more;
      more.connectivity = {{tenant.at("a"), from, true, "connected"}};
      more.updates = {{tenant.at("a"), "ro", "re", from, "CONFIRMED", "", ""}};
      co_await store.insert(std::move(more));
    }
    EXPECT_EQ((co_await store.connectivity(tenant.all(), from, from + 1, 10)).size(), 1u);
    EXPECT_EQ((co_await store.updates(tenant.all(), from, from + 1, 10)).size(), 1u);
  });
}

TEST_P(TimeSeriesContract, RangesAreCutWhereAskedFor) {
  check([&](TimeSeries& store) -> Task<void> {
    const std::int64_t from = noon();
    std::vector<MetricRow> rows;
    for (int i = 0; i < 10; ++i) {
      for (const char* device : {"a", "b"})
        rows.push_back(tenant.metric(device, "load_1m", from + i, i));
    }
    rows.push_back(tenant.metric("a", "bad", from, std::nan("")));
    rows.push_back(tenant.metric("a", "bad", from, INFINITY));
    co_await insert(store, rows);
    MetricQuery query = tenant.metrics(from + 2, from + 5);
    auto found = co_await store.range(query);  // the values as they came
    EXPECT_EQ(found.size(), 6u);
    if (found.size() != 6) co_return;
    EXPECT_EQ(found[0].at_ms, from + 2);
    EXPECT_EQ(found[2].at_ms, from + 4);
    EXPECT_EQ(found[2].avg, 4);
    EXPECT_EQ(found[3].device, "b");
    query.subject.devices = {"b"};
    query.limit = 2;
    found = co_await store.range(query);
    EXPECT_EQ(found.size(), 2u);
    query.subject.fleets = {"other"};
    EXPECT_TRUE((co_await store.range(query)).empty());
    query.subject.fleets = {"other", "f"};
    EXPECT_EQ((co_await store.range(query)).size(), 2u);
    MetricQuery bad = tenant.metrics(from, from + 1);
    bad.names = {"bad"};
    EXPECT_TRUE((co_await store.range(bad)).empty());
  });
}

TEST_P(TimeSeriesContract, AMetricOfSomeDevicesIsSummedUp) {
  check([&](TimeSeries& store) -> Task<void> {
    const std::int64_t from = noon();
    std::vector<MetricRow> rows;
    for (int i = 0; i < 100; ++i) rows.push_back(tenant.metric("a", "load_1m", from + i, i));
    rows.push_back(tenant.metric("b", "load_1m", from + 1, 500));
    rows.push_back(tenant.metric("b", "load_1m", from + 50, 300));
    rows.push_back(tenant.metric("other", "load_1m", from + 1, 9000));
    rows.push_back(tenant.metric("a", "cpu_ratio", from + 1, 9000));
    rows.push_back({tenant.at("a", "web"), "load_1m", from + 1, 9000});
    co_await insert(store, rows);
    co_await insert(store, rows);  // the same again counts once
    co_await insert(store, {Tenant().metric("a", "load_1m", from + 1, 9000)});
    SummaryQuery query{tenant.org, {{"a", 0}, {"b", from + 2}, {"silent", 0}}, "load_1m", "", from,
                       from + 1000};
    const Summary all = co_await store.summary(query);
    EXPECT_EQ(all.devices, 2);
    EXPECT_EQ(all.max, 300) << "b counts from its second value on";
    EXPECT_NEAR(all.avg, (4950.0 + 300) / 101, 1e-9);
    EXPECT_EQ(all.p95, 95);
    query.devices = {{"a", 0}};
    EXPECT_EQ((co_await store.summary(query)).max, 99);
    query.name = "uptime_seconds";
    EXPECT_EQ((co_await store.summary(query)).devices, 0);
    query.devices.clear();
    EXPECT_EQ((co_await store.summary(query)).devices, 0);
  });
}

TEST_P(TimeSeriesContract, LogsAreOrderedFilteredAndPaged) {
  check([&](TimeSeries& store) -> Task<void> {
    const std::int64_t from = noon();
    std::vector<LogRow> rows;
    for (int i = 0; i < 50; ++i)  // five of each time, on two devices
      rows.push_back(tenant.line(i % 2 == 0 ? "a" : "b", i, from + std::int64_t{i / 5} * 700'000,
                                 "line " + std::to_string(i)));
    rows[7].level = 4;
    rows[9].level = 0;
    rows[10].gap = 2;
    rows[10].count = 30;
    rows[10].text = "";
    rows[11].truncated = true;
    std::vector<LogRow> shuffled = rows;
    std::ranges::shuffle(shuffled, std::mt19937(1));  // NOLINT(cert-msc51-cpp): the same each time
    co_await insert(store, shuffled);
    const std::int64_t to = from + kDayMs;
    const auto all = (co_await store.logs(tenant.lines(from, to))).rows;
    EXPECT_EQ(all.size(), 50u);
    EXPECT_TRUE(std::ranges::is_sorted(all, {}, place_of));
    const auto gap = std::ranges::find(all, 10, &LogRow::number);
    EXPECT_EQ(gap->gap, 2);
    EXPECT_EQ(gap->count, 30);
    const auto full = std::ranges::find(all, 11, &LogRow::number);
    EXPECT_TRUE(full->truncated);
    EXPECT_EQ(full->origin.org, tenant.org);
    EXPECT_EQ(full->origin.fleet + full->origin.device + full->origin.service, "fbweb");
    EXPECT_EQ(full->epoch, 1);
    EXPECT_EQ(full->received_ms, full->at_ms + 500);
    EXPECT_EQ(full->source, 1);
    EXPECT_EQ(full->level, 2);
    EXPECT_EQ(full->text, "line 11");
    for (const bool newest_first : {false, true}) {
      LogQuery query = tenant.lines(from, to);
      query.limit = 7;
      query.newest_first = newest_first;
      std::vector<LogRow> paged;
      for (int pages = 0; pages < 20; ++pages) {
        LogPage page = co_await store.logs(query);
        for (LogRow& row : page.rows) paged.push_back(std::move(row));
        query.after = page.next;
        if (page.next.empty()) break;
      }
      if (newest_first) std::ranges::reverse(paged);
      EXPECT_EQ(numbers(paged), numbers(all));
    }
    LogQuery query = tenant.lines(from, to);
    query.min_level = 3;
    EXPECT_EQ(numbers((co_await store.logs(query)).rows), "7 10 ");
    query.min_level = 0;
    query.contains = "ine 4";  // 4 and 40 to 49, and the gap
    EXPECT_EQ((co_await store.logs(query)).rows.size(), 12u);
    query.subject.devices = {"b"};
    EXPECT_EQ(numbers((co_await store.logs(query)).rows), "41 43 45 47 49 ");
    query.limit = 5;  // exactly all
    EXPECT_EQ((co_await store.logs(query)).next, "");
    query.subject.services = {"db"};
    EXPECT_TRUE((co_await store.logs(query)).rows.empty());
  });
}

TEST_P(TimeSeriesContract, WhatArrivedIsToldInTheOrderOfArrival) {
  check([&](TimeSeries& store) -> Task<void> {
    const std::int64_t now = noon();
    std::vector<LogRow> rows;
    for (int i = 0; i < 10; ++i)  // the later it was written, the sooner it came
      rows.push_back(tenant.line("a", i, now + std::int64_t{i} * 1000, "x"));
    for (int i = 0; i < 10; ++i) rows[static_cast<std::size_t>(i)].received_ms = now + 100 - i;
    rows[4].at_ms = now - 3 * kDayMs;  // kept on the device for days
    rows[4].text = "needle";
    co_await insert(store, rows);
    LogQuery query = tenant.lines(0, 0);
    EXPECT_EQ(numbers(co_await store.arrived(query, now + 95)), "5 4 3 2 1 0 ");
    query.limit = 2;
    EXPECT_EQ(numbers(co_await store.arrived(query, now + 95)), "5 4 ");
    query.contains = "needle";
    EXPECT_EQ(numbers(co_await store.arrived(query, now)), "4 ");
    query.subject.devices = {"b"};
    EXPECT_TRUE((co_await store.arrived(query, now)).empty());
  });
}

TEST_P(TimeSeriesContract, EventsAreTheNewestInTimesOrder) {
  check([&](TimeSeries& store) -> Task<void> {
    const std::int64_t from = noon();
    Rows rows;
    for (int i = 0; i < 6; ++i) {
      rows.connectivity.push_back({tenant.at("a"), from + i, i % 2 == 0, "r" + std::to_string(i)});
      rows.updates.push_back(
          {tenant.at("a"), "ro", "re", from + i, "PHASE" + std::to_string(i), "code", "it's"});
    }
    co_await store.insert(std::move(rows));
    const auto online = co_await store.connectivity(tenant.all(), from, from + 5, 3);
    EXPECT_EQ(online.size(), 3u);
    if (online.size() == 3) {
      EXPECT_EQ(online[0].reason + online[2].reason, "r2r4");
      EXPECT_TRUE(online[2].online);
      EXPECT_EQ(online[2].origin.org, tenant.org);
    }
    const auto updates = co_await store.updates(tenant.all(), from + 4, from + 100, 10);
    EXPECT_EQ(updates.size(), 2u);
    if (updates.size() == 2) {
      EXPECT_EQ(updates[1].phase + updates[1].error_code + updates[1].detail, "PHASE5codeit's");
      EXPECT_EQ(updates[1].rollout + updates[1].release, "rore");
    }
  });
}

// Any bytes in every place that may hold them, stored and asked for.
TEST_P(TimeSeriesContract, AnyBytesComeBackAsTheyWere) {
  check([&](TimeSeries& store) -> Task<void> {
    const std::int64_t from = noon();
    std::vector<std::string> texts{"",        "'",        "\\", "\\'", "' OR 1=1 --",
                                   "a{org}b", "\xff\xfe", "%_*"};
    texts.push_back(std::string("a\0b", 3));
    std::string every;
    for (int byte = 0; byte < 256; ++byte) every += static_cast<char>(byte);
    texts.push_back(every);
    std::mt19937 random(7);  // NOLINT(cert-msc51-cpp): the same each time
    for (int i = 0; i < 40; ++i) {
      std::string text(random() % 60, ' ');
      for (char& c : text)
        c = random() % 2 == 0 ? "'\\\"`{}\n\0x"[random() % 9] : static_cast<char>(random());
      texts.push_back(std::to_string(i) + text);
    }
    std::vector<LogRow> rows;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      LogRow row = tenant.line("d" + texts[i], static_cast<std::int64_t>(i), from, texts[i]);
      row.origin.service = texts[i];
      rows.push_back(std::move(row));
    }
    co_await insert(store, rows);
    for (std::size_t i = 0; i < texts.size(); ++i) {
      LogQuery query = tenant.lines(from, from + 1);
      query.subject.devices = {"d" + texts[i]};
      query.subject.services = {texts[i]};
      query.contains = texts[i];
      const auto found = (co_await store.logs(query)).rows;
      EXPECT_EQ(found.size(), 1u) << i;
      if (found.size() != 1) continue;
      EXPECT_EQ(found[0].text, texts[i]);
      query.after = cursor_of(found[0]);
      EXPECT_TRUE((co_await store.logs(query)).rows.empty());
    }
  });
}

TEST_P(TimeSeriesContract, AClockThatIsFarOffLosesNothing) {
  check([&](TimeSeries& store) -> Task<void> {
    const std::int64_t now = noon(), year = 365 * kDayMs;
    const std::vector<std::int64_t> times{5,   now - 3 * year, now - year,
                                          now, now + year,     now + 30 * year};
    std::vector<MetricRow> rows;
    std::vector<LogRow> lines;
    for (const std::int64_t at : times) {
      rows.push_back(tenant.metric("a", "load_1m", at, 1));
      lines.push_back(tenant.line("a", 1, at, "x"));
    }
    for (int day = 0; day < 400; ++day)  // and makes no partition for each day
      rows.push_back(tenant.metric("b", "load_1m", now + 5 * year + day * kDayMs, 1));
    co_await insert(store, rows);
    co_await insert(store, lines);
    MetricQuery query = tenant.metrics(0, INT64_MAX);
    query.subject.devices = {"a"};
    EXPECT_EQ((co_await store.range(query)).size(), times.size());
    EXPECT_EQ((co_await store.logs(tenant.lines(0, INT64_MAX))).rows.size(), times.size());
    LogQuery newest = tenant.lines(INT64_MIN, INT64_MAX);
    newest.newest_first = true;
    newest.limit = 2;
    const auto found = (co_await store.logs(newest)).rows;
    EXPECT_EQ(found.size(), 2u);
    EXPECT_EQ(found.front().at_ms, now + 30 * year);
    EXPECT_EQ((co_await store.range(tenant.metrics(now - year, now - year + 1))).size(), 1u);
  });
}

TEST_P(TimeSeriesContract, RetentionTakesWholeDaysOfWhomItShould) {
  check([&](TimeSeries& store) -> Task<void> {
    const std::int64_t now = noon();
    const Tenant other;
    for (const Tenant& of : {tenant, other}) {
      Rows rows;
      for (int day = 0; day < 5; ++day) {
        const std::int64_t at = now - day * kDayMs;
        rows.metrics.push_back(of.metric("a", "load_1m", at, day));
        rows.logs.push_back(of.line("a", day, at, "x"));
        rows.connectivity.push_back({of.at("a"), at, true, ""});
        rows.updates.push_back({of.at("a"), "ro", "re", at, "P", "", ""});
      }
      co_await store.insert(std::move(rows));
    }
    const auto left = [&](const Tenant& of) -> Task<std::string> {
      const auto metrics = co_await store.range(of.metrics(0, INT64_MAX));
      const auto logs = co_await store.logs(of.lines(0, INT64_MAX));
      const auto online = co_await store.connectivity(of.all(), 0, INT64_MAX, 100);
      const auto updates = co_await store.updates(of.all(), 0, INT64_MAX, 100);
      co_return std::to_string(metrics.size()) + std::to_string(logs.rows.size()) +
          std::to_string(online.size()) + std::to_string(updates.size());
    };
    const auto becomes = [&](Expiry expiry, const Tenant& of, std::string wanted) -> Task<void> {
      std::string found;
      for (int i = 0; i < 400 && found != wanted; ++i) {  // 18.16 begins one within 10 s
        co_await store.expire(expiry);
        found = co_await left(of);
        if (found != wanted) co_await sleep_for(Duration(50));
      }
      EXPECT_EQ(found, wanted);
    };
    co_await becomes({{tenant.org}, now - 2 * kDayMs, 0}, tenant, "3533");
    EXPECT_EQ(co_await left(other), "5555");
    co_await becomes({{tenant.org, "nobody"}, 0, now - kDayMs}, tenant, "3233");
    EXPECT_EQ(co_await left(other), "5555");
    co_await becomes({{}, now - 3 * kDayMs, now - 3 * kDayMs}, other, "4444");
    EXPECT_EQ(co_await left(tenant), "3233");
  });
}

TEST_P(TimeSeriesContract, WhatCannotBeAskedIsRefused) {
  check([&](TimeSeries& store) -> Task<void> {
    const auto refused = [&](auto task) -> Task<void> {
      try {
        co_await std::move(task);
        ADD_FAILURE() << "nothing was thrown";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Code::kInvalidArgument) << error.describe();
      }
    };
    MetricQuery metrics;  // of no organization
    co_await refused(store.range(metrics));
    co_await refused(store.latest(metrics));
    metrics = tenant.metrics(0, 1);
    metrics.limit = 0;
    co_await refused(store.range(metrics));
    metrics.limit = 1;
    metrics.step = Duration(-1);
    co_await refused(store.range(metrics));
    metrics.step = Duration(0);
    metrics.subject.devices.assign(10'001, "d");
    co_await refused(store.range(metrics));
    LogQuery lines = tenant.lines(0, 1);
    lines.after = "no cursor";
    co_await refused(store.logs(lines));
    lines.after = "";
    lines.contains = std::string(5000, 'x');
    co_await refused(store.arrived(lines, 0));
    co_await refused(store.connectivity(Subject{}, 0, 1, 1));
    co_await refused(store.summary(SummaryQuery{}));
    SummaryQuery summary{tenant.org, {}, "load_1m", "", 0, 1};
    summary.devices.assign(10'001, {"d", 0});
    co_await refused(store.summary(summary));
    co_await refused(store.updates(tenant.all(), 0, 1, 10'000'000));
  });
}

// The most that one question may name, each of the widest kind.
TEST_P(TimeSeriesContract, LongListsAreTaken) {
  check([&](TimeSeries& store) -> Task<void> {
    const std::int64_t from = noon();
    co_await insert(store, {tenant.metric("needle", "load_1m", from, 1)});
    MetricQuery query = tenant.metrics(from, from + 1);
    for (int i = 0; i < 9'999; ++i) query.subject.devices.push_back(new_uuid() + "\xff'\\");
    query.subject.devices.push_back("needle");
    EXPECT_EQ((co_await store.range(query)).size(), 1u);
    SummaryQuery summary{tenant.org, {}, "load_1m", "", from, from + 1};
    for (const std::string& device : query.subject.devices)
      summary.devices.emplace_back(device, from - (device == "needle"));
    summary.devices.front().second = from + 1;
    EXPECT_EQ((co_await store.summary(summary)).devices, 1);
  });
}

class OnClickHouse : public TimeSeriesContract {};
INSTANTIATE_TEST_SUITE_P(Stores, OnClickHouse, ::testing::Values("clickhouse"));

TEST_P(OnClickHouse, ComesBackAfterAKill) {
  check([&](TimeSeries& store) -> Task<void> {
    const std::int64_t from = noon();
    co_await insert(store, {tenant.metric("a", "load_1m", from, 1)});
    server->kill9();
    EXPECT_EQ(co_await code_of_task(store.ping()), Code::kUnavailable);
    EXPECT_EQ(co_await code_of_task(insert(store, {tenant.metric("a", "load_1m", from + 1, 1)})),
              Code::kUnavailable);
    server->start();
    co_await store.ping();
    co_await insert(store, {tenant.metric("a", "load_1m", from + 1, 1)});
    EXPECT_EQ((co_await store.range(tenant.metrics(from, from + 2))).size(), 2u);
  });
}

// It takes connections and answers nothing.
TEST_P(OnClickHouse, DoesNotWaitForeverForAServerThatHangs) {
  check([&](TimeSeries& store) -> Task<void> {
    const std::int64_t from = noon();
    co_await insert(store, {tenant.metric("a", "load_1m", from, 1)});
    ClickHouseOptions hasty = options();
    hasty.query_time = Duration(100);
    hasty.insert_time = Duration(300);
    const auto impatient =
        make_clickhouse_time_series(co_await asio::this_coro::executor, std::move(hasty));
    server->pause();
    const auto ask = [&]() -> Task<void> {
      co_await impatient->range(tenant.metrics(from, from + 1));
    };
    const Code asked = co_await code_of_task(ask());
    const Code inserted =
        co_await code_of_task(insert(*impatient, {tenant.metric("a", "load_1m", from + 1, 1)}));
    server->resume();
    EXPECT_EQ(asked, Code::kTimeout);
    EXPECT_EQ(inserted, Code::kUnavailable);
    co_await insert(*impatient, {tenant.metric("a", "load_1m", from + 1, 1)});
    const auto found = co_await store.range(tenant.metrics(from, from + 2));
    EXPECT_EQ(found.size(), 2u);  // whether the first attempt came through or not
  });
}

// Connections are kept between questions, and the server ends those that it sees idle.
TEST_P(OnClickHouse, AKeptConnectionThatTheServerEndedIsNoFailure) {
  check([&](TimeSeries& store) -> Task<void> {
    const std::int64_t from = noon();
    co_await store.ping();
    server->stop();  // in order: the connection is closed
    server->start();
    co_await insert(store, {tenant.metric("a", "load_1m", from, 1)});
    EXPECT_EQ((co_await store.range(tenant.metrics(from, from + 1))).size(), 1u);
  });
}

TEST_P(OnClickHouse, MakesItsTablesAgainWhenSomebodyTookThem) {
  check([&](TimeSeries& store) -> Task<void> {
    const std::int64_t from = noon();
    co_await insert(store, {tenant.metric("a", "load_1m", from, 1)});
    flock::testing::run_program(
        {"clickhouse-client", "--port", std::to_string(server->native_port()), "--password",
         flock::testing::ClickHouse::password(), "--query", "DROP DATABASE flock"});
    co_await insert(store, {tenant.metric("a", "load_1m", from + 1, 1)});
    EXPECT_EQ((co_await store.range(tenant.metrics(from, from + 2))).size(), 1u);
  });
}

TEST_P(OnClickHouse, SaysWhatIsWrongWithItsConfiguration) {
  check([&](TimeSeries&) -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    const auto says = [&](ClickHouseOptions wrong, const char* text) -> Task<void> {
      const auto store = make_clickhouse_time_series(executor, std::move(wrong));
      try {
        co_await store->ping();
        ADD_FAILURE() << "nothing was thrown";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Code::kUnavailable);
        EXPECT_NE(error.describe().find(text), std::string::npos) << error.describe();
      }
    };
    ClickHouseOptions wrong = options();
    wrong.password = "wrong";
    co_await says(wrong, "username or password");
    wrong = options();
    wrong.username = "nobody";
    co_await says(wrong, "username or password");
    wrong = options();
    wrong.url = "http://127.0.0.1:" + std::to_string(server->native_port());
    co_await says(wrong, "");  // the port of the other protocol
    // Another program that says yes to everything.
    const auto yes = [](net::Request) -> Task<net::Reply> {
      co_return net::Reply{{200, {}, "<html>welcome</html>"}, {}};
    };
    net::HttpServer other(executor, yes, [](const net::Request&, std::exception_ptr) {
      return net::Response{500, {}, ""};
    });
    auto listener = net::Listener::tcp(executor, "127.0.0.1", 0);
    wrong.url = "http://127.0.0.1:" + std::to_string(listener->port());
    other.listen(std::move(listener));
    co_await says(wrong, "not ClickHouse");
    co_await other.stop();
  });
}

TEST_P(OnClickHouse, AQuestionIsHeldToItsLimits) {
  check([&](TimeSeries& store) -> Task<void> {
    const std::int64_t from = noon();
    std::vector<MetricRow> rows;
    for (int i = 0; i < 20'000; ++i) rows.push_back(tenant.metric("a", "load_1m", from + i, i));
    co_await insert(store, rows);
    ClickHouseOptions small = options();
    small.query_rows = 1000;
    const auto limited =
        make_clickhouse_time_series(co_await asio::this_coro::executor, std::move(small));
    const auto all = [&]() -> Task<void> {
      co_await limited->range(tenant.metrics(from, from + 20'000));
    };
    EXPECT_EQ(co_await code_of_task(all()), Code::kTooLarge);
  });
}

}  // namespace
}  // namespace flock::stores

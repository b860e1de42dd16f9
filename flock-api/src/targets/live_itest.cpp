// SPDX-License-Identifier: Apache-2.0
// Metrics and logs as the API shows them: in time, within the reader's fleets, and followed without
// loss or repeats.
#include <gtest/gtest.h>

#include <algorithm>

#include "async/loop.h"
#include "base/json.h"
#include "targets/api_itest.h"
#include "targets/itest_document.h"
#include "targets/sse_listener_itest.h"

namespace flock::targets {
namespace {

using namespace itest;
using stores::LogRow;
using Points = std::vector<stores::MetricPoint>;
using Presence = std::vector<stores::ConnectivityRow>;
using Updates = std::vector<stores::UpdateRow>;

constexpr int kLines = 3000, kMany = 6000;

std::int64_t now_ms() { return to_unix_ms(system_clock().now()); }

// A tenant with a device in edge and one in north.
struct Site {
  Site(Executor executor, Stack& stack) : backend(executor, stack), api(executor, stack) {}
  Task<void> open() {
    co_await backend.start();
    api.token = co_await backend.make_tenant("Live");
    org = text((co_await api.call("GET", "/v1/whoami")).at("organization"), "id");
    for (const char* name : {"edge", "north"}) {
      const bj::value fleet = co_await api.call("POST", "/v1/fleets", bj::object{{"name", name}});
      fleets[name] = text(fleet, "id");
      const bj::value key =
          co_await api.call("POST", "/v1/provisioning-keys", bj::object{{"fleet_id", name}});
      auto& device = *devices.emplace_back(std::make_unique<FakeDevice>(backend));
      co_await device.join(api, text(key, "secret"));
      ids[name] = device.id;
      co_await api.call("PATCH", "/v1/devices/" + device.id,
                        bj::object{{"name", std::string("in-") + name}});
    }
  }
  stores::Origin origin(const std::string& fleet, std::string service = "") {
    return {org, fleets[fleet], ids[fleet], std::move(service)};
  }
  Task<void> insert(stores::Rows rows) { co_await backend.time_series->insert(std::move(rows)); }
  Task<void> measure(const std::string& fleet, std::string name, std::int64_t at, double value,
                     std::string service = "") {
    stores::Rows rows;
    rows.metrics.push_back({origin(fleet, std::move(service)), std::move(name), at, value});
    co_await insert(std::move(rows));
  }
  LogRow line(const std::string& fleet, std::int64_t number, std::string text, int level = 2) {
    LogRow row;
    row.origin = origin(fleet, "web");
    row.epoch = 1;
    row.number = number;
    row.at_ms = row.received_ms = now_ms();
    row.source = 1;
    row.level = level;
    row.text = std::move(text);
    return row;
  }
  Task<void> write(std::vector<LogRow> rows) {
    stores::Rows all;
    all.logs = std::move(rows);
    co_await insert(std::move(all));
  }

  std::vector<std::unique_ptr<FakeDevice>> devices;  // outlives the backend
  Backend backend;
  Api api;
  std::string org;
  std::map<std::string, std::string> fleets, ids;
};

class Metrics : public SiteTest<Site> {};
class Logs : public SiteTest<Site> {};

TEST_F(Metrics, AreGivenInPointsOfAStep) {
  on_site([](Site& s) -> Task<void> {
    const std::int64_t minute = now_ms() / 60'000 * 60'000 - 600'000;
    for (int i = 0; i < 6; ++i)
      co_await s.measure("edge", "cpu_ratio", minute + i * 20'000, 0.1 * i);
    co_await s.measure("edge", "memory_bytes", minute, 5000, "web");
    const bj::value answer =
        co_await s.api.call("GET", "/v1/devices/in-edge/metrics?names=cpu_ratio&step=1m&from=-20m");
    EXPECT_EQ(s.api.last.status, 200) << s.api.last.body;
    EXPECT_EQ(text(answer, "step"), "1m");
    EXPECT_EQ(answer.at("series").as_array().size(), 1u);
    const bj::value& series = answer.at_pointer("/series/0");
    EXPECT_EQ(series.at_pointer("/device/name"), "in-edge");
    EXPECT_EQ(series.at("points").as_array().size(), 2u);
    const bj::value& second = series.at_pointer("/points/1");
    EXPECT_EQ(second.at("count"), 3);
    EXPECT_NEAR(second.at("min").to_number<double>(), 0.3, 1e-6);
    EXPECT_NEAR(second.at("avg").to_number<double>(), 0.4, 1e-6);
    EXPECT_NEAR(second.at("max").to_number<double>(), 0.5, 1e-6);
    const bj::value all = co_await s.api.call("GET", "/v1/metrics?fleet=edge&from=-20m");
    EXPECT_EQ(all.at("series").as_array().size(), 2u);
    EXPECT_EQ(
        (co_await s.api.call("GET", "/v1/metrics?service=web")).at_pointer("/series/0/service"),
        "web");
    for (const char* from : {"-1m", "-1h", "-1d", "-30d", "-365d"}) {
      const bj::value wide = co_await s.api.call("GET", std::string("/v1/metrics?from=") + from);
      const Duration span = parse_duration(std::string(from).substr(1));
      EXPECT_LE(span / parse_duration(text(wide, "step")) + 1, 500) << from;
    }
  });
}

TEST_F(Metrics, ShowTheNewestOfEachDevice) {
  on_site([](Site& s) -> Task<void> {
    co_await s.measure("edge", "cpu_ratio", now_ms() - 60'000, 0.5);
    co_await s.measure("edge", "cpu_ratio", now_ms() - 1000, 0.25);
    co_await s.measure("edge", "cpu_cores", now_ms() - 1000, 1.5, "web");
    co_await s.measure("north", "cpu_ratio", now_ms() - 1000, 0.75);
    co_await s.measure("north", "load_1m", now_ms() - 3'600'000, 9);
    const bj::value both = co_await s.api.call("GET", "/v1/metrics/latest");
    EXPECT_EQ(both.at("items").as_array().size(), 2u) << s.api.last.body;
    const bj::value edge = co_await s.api.call("GET", "/v1/metrics/latest?fleet=edge");
    EXPECT_EQ(edge.at("items").as_array().size(), 1u);
    EXPECT_EQ(edge.at_pointer("/items/0/metrics/host/cpu_ratio"), 0.25);
    EXPECT_EQ(edge.at_pointer("/items/0/metrics/services/web/cpu_cores"), 1.5);
    const bj::value north = co_await s.api.call("GET", "/v1/devices/in-north?include=metrics");
    EXPECT_FALSE(
        (co_await s.api.call("GET", "/v1/devices/in-north")).as_object().contains("metrics"));
    EXPECT_EQ(north.at_pointer("/metrics/host"), (bj::object{{"cpu_ratio", 0.75}}))
        << "what is an hour old is not how it is now";
  });
}

TEST_F(Metrics, StayWithinTheFleetsAndTheOrganization) {
  on_site([](Site& s) -> Task<void> {
    co_await s.measure("edge", "cpu_ratio", now_ms(), 0.5);
    co_await s.measure("north", "cpu_ratio", now_ms(), 0.5);
    co_await s.write({s.line("edge", 1, "secret of edge"), s.line("north", 1, "north")});
    Api limited(s.backend.executor, s.backend.stack,
                co_await s.backend.make_key(s.api.token, "owner", {},
                                            std::vector<std::string>{s.fleets["north"]})),
        nowhere(s.backend.executor, s.backend.stack,
                co_await s.backend.make_key(s.api.token, "owner", {}, std::vector<std::string>{})),
        other(s.backend.executor, s.backend.stack, co_await s.backend.make_tenant("Other"));
    for (const char* path : {"/v1/metrics", "/v1/metrics/latest", "/v1/logs"}) {
      for (Api* api : {&limited, &nowhere, &other}) {
        co_await api->call("GET", path);
        EXPECT_EQ(api->last.status, 200) << api->last.body;
        EXPECT_EQ(api->last.body.find(s.ids["edge"]), std::string::npos) << path;
        EXPECT_EQ(api->last.body.find(s.ids["north"]) != std::string::npos, api == &limited)
            << path << api->last.body;
      }
    }
    co_await refuse(limited, {{"GET", "/v1/logs?fleet=edge", "", 404, "no such fleet"},
                              {"GET", "/v1/metrics?device=in-edge", "", 404, "no such device"},
                              {"GET", "/v1/devices/in-edge/logs", "", 404, "no such device"}});
  });
}

std::vector<std::int64_t> numbers(const SseListener& listener) {
  std::vector<std::int64_t> out;
  for (const auto& event : listener.events) {
    if (event.event == "log") out.push_back(json::parse(event.data).at("number").as_int64());
  }
  return out;
}

// A store that answers nothing.
class Away final : public stores::TimeSeries {
 public:
  Task<void> insert(stores::Rows) override { return away<void>(); }
  Task<Points> latest(stores::MetricQuery) override { return away<Points>(); }
  Task<Points> range(stores::MetricQuery) override { return away<Points>(); }
  Task<stores::Summary> summary(stores::SummaryQuery) override { return away<stores::Summary>(); }
  Task<stores::OperatorAnswer> ask(stores::OperatorQuery) override {
    return away<stores::OperatorAnswer>();
  }
  Task<stores::LogPage> logs(stores::LogQuery) override { return away<stores::LogPage>(); }
  Task<std::vector<LogRow>> arrived(stores::LogQuery, std::int64_t) override {
    return away<std::vector<LogRow>>();
  }
  Task<Presence> connectivity(stores::Subject, std::int64_t, std::int64_t, std::size_t) override {
    return away<Presence>();
  }
  Task<Updates> updates(stores::Subject, std::int64_t, std::int64_t, std::size_t) override {
    return away<Updates>();
  }
  Task<void> expire(stores::Expiry) override { return away<void>(); }
  Task<void> ping() override { return away<void>(); }

 private:
  template <class T>
  static Task<T> away() {
    throw Error(Code::kUnavailable, "the store of time series is away");
    co_return T();
  }
};

// A store in memory that is away for a while.
class Flaky final : public stores::TimeSeries {
 public:
  bool away = false;
  Task<void> insert(stores::Rows rows) override { return memory_->insert(std::move(rows)); }
  Task<Points> latest(stores::MetricQuery query) override { return memory_->latest(query); }
  Task<Points> range(stores::MetricQuery query) override { return memory_->range(query); }
  Task<stores::Summary> summary(stores::SummaryQuery query) override {
    return memory_->summary(query);
  }
  Task<stores::OperatorAnswer> ask(stores::OperatorQuery query) override {
    return memory_->ask(query);
  }
  Task<stores::LogPage> logs(stores::LogQuery query) override { return memory_->logs(query); }
  Task<std::vector<LogRow>> arrived(stores::LogQuery query, std::int64_t from) override {
    if (away) throw Error(Code::kUnavailable, "the store of time series is away");
    co_return co_await memory_->arrived(std::move(query), from);
  }
  Task<Presence> connectivity(stores::Subject subject, std::int64_t from, std::int64_t to,
                              std::size_t limit) override {
    return memory_->connectivity(subject, from, to, limit);
  }
  Task<Updates> updates(stores::Subject subject, std::int64_t from, std::int64_t to,
                        std::size_t limit) override {
    return memory_->updates(subject, from, to, limit);
  }
  Task<void> expire(stores::Expiry expiry) override { return memory_->expire(expiry); }
  Task<void> ping() override { return memory_->ping(); }

 private:
  std::unique_ptr<stores::TimeSeries> memory_ = stores::make_memory_time_series();
};

TEST_F(Logs, ThatWereHeldBackWhileTheStoreWasAwayAreNotMissed) {
  flock::testing::run_task(
      [&]() -> Task<void> {
        Site s(co_await asio::this_coro::executor, *stack);
        auto store = std::make_unique<Flaky>();
        Flaky& flaky = *store;
        s.backend.time_series = std::move(store);
        co_await s.open();
        const auto body = [&]() -> Task<void> {
          SseListener reader(s.backend, s.api.token, "/v1/logs:follow?device=in-edge&from=-1h");
          co_await reader.connected();
          LogRow before = s.line("edge", 1, "before");
          before.received_ms -= 60'000;
          co_await s.write({before});
          co_await reader.until_count(1);
          flaky.away = true;
          co_await sleep_for(Duration(600));
          flaky.away = false;
          co_await s.write({s.line("edge", 3, "new")});
          co_await reader.until_count(2);
          LogRow held = s.line("edge", 2, "held back for half a minute");
          held.received_ms -= 30'000;
          co_await s.write({held});
          co_await reader.until_count(3);
          EXPECT_EQ(numbers(reader), (std::vector<std::int64_t>{1, 3, 2}));
          co_await reader.stop();
        };
        co_await stop_after(s.backend, body());
      },
      Duration(30'000));
}

TEST_F(Metrics, ADeviceIsShownWithoutThem) {
  flock::testing::run_task(
      [&]() -> Task<void> {
        Site s(co_await asio::this_coro::executor, *stack);
        s.backend.time_series = std::make_unique<Away>();
        co_await s.open();
        co_await stop_after(s.backend, [](Site& site) -> Task<void> {
          const bj::value device =
              co_await site.api.call("GET", "/v1/devices/in-edge?include=metrics");
          EXPECT_EQ(site.api.last.status, 200) << site.api.last.body;
          EXPECT_FALSE(device.as_object().contains("metrics"));
          EXPECT_TRUE(device.at("connectivity").as_object().contains("online"));
          const bj::value events =
              co_await site.api.call("GET", "/v1/devices/in-edge/events?from=-1h");
          EXPECT_TRUE(events.at("incomplete").as_bool());
          EXPECT_FALSE(events.at("items").as_array().empty()) << "its history is there";
          co_await refuse(site.api, {{"GET", "/v1/metrics", "", 503, "away"},
                                     {"GET", "/v1/logs", "", 503, "away"}});
        }(s));
      },
      Duration(30'000));
}

TEST_F(Metrics, NameWhatCannotBeAsked) {
  on_site([](Site& s) -> Task<void> {
    co_await refuse(s.api,
                    {{"GET", "/v1/metrics?from=yesterday", "", 400, "?from"},
                     {"GET", "/v1/metrics?from=-1h&to=-2h", "", 400, "?from"},
                     {"GET", "/v1/metrics?from=-500d", "", 400, "?from"},
                     {"GET", "/v1/devices/in-edge?include=logs", "", 400, "?include"},
                     {"GET", "/v1/metrics?step=1ms", "", 400, "?step"},
                     {"GET", "/v1/metrics?from=-30d&step=1s", "", 400, "2000 points"},
                     {"GET", "/v1/metrics?bucket=1s", "", 400, "?bucket"},
                     {"GET", "/v1/logs?level=loud", "", 400, "?level"},
                     {"GET", "/v1/logs?order=up", "", 400, "?order"},
                     {"GET", "/v1/logs?page_token=AAAA", "", 400, "page_token"},
                     {"GET", "/v1/logs:follow?tail=1001", "", 400, "?tail"},
                     {"GET", "/v1/logs?contains=" + std::string(1001, 'x'), "", 400, "?contains"}});
  });
}

TEST_F(Logs, ComeInPagesWithTheirGaps) {
  on_site([](Site& s) -> Task<void> {
    std::vector<LogRow> rows;
    const std::int64_t begin = now_ms() - 60'000;
    for (int i = 1; i <= 10; ++i) {
      rows.push_back(s.line("edge", i, "line " + std::to_string(i), i == 7 ? 4 : 2));
      rows.back().at_ms = begin + i;
    }
    rows[4].gap = 1;  // lines 5 to 9 of the device, as it says
    rows[4].count = 342;
    rows[4].text.clear();
    co_await s.write(rows);
    std::string seen, token;
    int pages = 0;
    do {
      const bj::value page =
          co_await s.api.call("GET", "/v1/devices/in-edge/logs?order=asc&page_size=3" +
                                         (token.empty() ? "" : "&page_token=" + token));
      EXPECT_EQ(s.api.last.status, 200) << s.api.last.body;
      for (const bj::value& item : page.at("items").as_array())
        seen += text(item, "kind") == "gap"
                    ? "[gap of " + std::to_string(item.at("count").as_int64()) + " " +
                          text(item, "reason") + "]"
                    : text(item, "text").substr(5) + " ";
      token = text(page, "next_page_token");
    } while (!token.empty() && ++pages < 20);
    EXPECT_EQ(seen, "1 2 3 4 [gap of 342 RATE_LIMITED]6 7 8 9 10 ");
    const bj::value newest = co_await s.api.call("GET", "/v1/logs?page_size=1");
    EXPECT_EQ(newest.at_pointer("/items/0/text"), "line 10");
    EXPECT_EQ(newest.at_pointer("/items/0/device/name"), "in-edge");
    const std::string next = text(newest, "next_page_token");
    co_await refuse(s.api, {{"GET", "/v1/logs?page_size=1&service=db&page_token=" + next, "", 400,
                             "another question"}});
    const bj::value errors = co_await s.api.call("GET", "/v1/logs?level=error&order=asc");
    EXPECT_EQ(errors.at("items").as_array().size(), 2u) << "the error, and the gap";
    const bj::value found = co_await s.api.call("GET", "/v1/logs?contains=ine%2010");
    EXPECT_EQ(found.at_pointer("/items/0/text"), "line 10");
  });
}

TEST_F(Logs, AreFollowedFromTheTailOn) {
  on_site([](Site& s) -> Task<void> {
    co_await s.write(
        {s.line("edge", 1, "old"), s.line("edge", 2, "older"), s.line("edge", 3, "the last")});
    SseListener tail(s.backend, s.api.token, "/v1/logs:follow?device=in-edge&tail=1"),
        fresh(s.backend, s.api.token, "/v1/logs:follow");
    co_await tail.connected();
    co_await fresh.connected();
    LogRow gap = s.line("edge", 5, "");
    gap.gap = 2;
    gap.count = 7;
    co_await s.write({s.line("edge", 4, "new"), gap, s.line("north", 1, "elsewhere")});
    co_await tail.until_count(3);
    co_await fresh.until_count(3);
    EXPECT_EQ(tail.types(), "log,log,gap");
    EXPECT_EQ(numbers(tail), (std::vector<std::int64_t>{3, 4}));
    EXPECT_EQ(tail.data(2).at("count"), 7);
    for (std::size_t i = 0; i < tail.events.size(); ++i) {
      for (const std::string& fault : schema_faults("LogItem", tail.data(i)))
        ADD_FAILURE() << fault;
    }
    // Another ingester was slower: it took the line before those that were told already.
    LogRow late = s.line("edge", 6, "late");
    late.received_ms -= 3000;
    co_await s.write({late});
    co_await tail.until_count(4);
    EXPECT_EQ(numbers(tail), (std::vector<std::int64_t>{3, 4, 6}));
    co_await tail.stop();
    co_await fresh.stop();
    Api::answered().insert("followLogs");
  });
}

TEST_F(Logs, GoOnWithWhatIsNewForAReaderWhoIsTooSlow) {
  on_site([](Site& s) -> Task<void> {
    std::vector<LogRow> rows;
    // Twice what the sockets between the two may hold (net.ipv4.tcp_rmem and tcp_wmem).
    for (int i = 1; i <= kMany; ++i) {
      rows.push_back(s.line("edge", i, std::string(12'000, 'x')));
      rows.back().received_ms -= 60'000 - i / 2;
    }
    co_await s.write(std::move(rows));
    SseListener reader(s.backend, s.api.token, "/v1/logs:follow?device=in-edge&from=-2m");
    reader.hold = true;
    co_await reader.connected();
    co_await sleep_for(Duration(2500));
    reader.hold = false;
    co_await reader.until(
        "the gap", [&] { return !reader.events.empty() && reader.events.back().event == "gap"; });
    const bj::value gap = reader.data(reader.events.size() - 1);
    EXPECT_EQ(text(gap, "reason"), "SLOW_READER");
    for (const std::string& fault : schema_faults("LogItem", gap)) ADD_FAILURE() << fault;
    EXPECT_LT(reader.events.size(), std::size_t{kMany}) << "it was let off the rest";
    co_await s.write({s.line("edge", kMany + 1, "new")});
    co_await reader.until("what is new", [&] {
      return reader.events.back().event == "log" &&
             json::parse(reader.events.back().data).at("number") == kMany + 1;
    });
    co_await reader.stop();
  });
}

TEST_F(Logs, AreFollowedAndSearchedInClickHouse) {
  const auto options = stack->clickhouse();
  if (!options) GTEST_SKIP() << "ClickHouse is not installed";
  flock::testing::run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        Site s(executor, *stack);
        s.backend.time_series = stores::make_clickhouse_time_series(executor, *options);
        co_await s.open();
        co_await stop_after(s.backend, [](Site& site) -> Task<void> {
          const std::string path = "/v1/logs:follow?device=in-edge&tail=2";
          co_await site.write(
              {site.line("edge", 1, "a"), site.line("edge", 2, "b"), site.line("edge", 3, "c")});
          SseListener first(site.backend, site.api.token, path);
          co_await first.connected();
          co_await site.write({site.line("edge", 4, "d")});
          co_await first.until_count(3);
          EXPECT_EQ(numbers(first), (std::vector<std::int64_t>{2, 3, 4}));
          co_await first.stop();
          co_await site.write({site.line("edge", 5, "e"), site.line("north", 1, "x")});
          SseListener second(site.backend, site.api.token, path, first.events[1].id);
          co_await second.until_count(2);
          EXPECT_EQ(numbers(second), (std::vector<std::int64_t>{4, 5}));
          co_await second.stop();
          const bj::value found =
              co_await site.api.call("GET", "/v1/logs?contains=e&service=web&order=asc");
          EXPECT_EQ(found.at("items").as_array().size(), 1u) << site.api.last.body;
          co_await site.measure("edge", "cpu_ratio", now_ms(), 0.5);
          const bj::value shown =
              co_await site.api.call("GET", "/v1/devices/in-edge?include=metrics");
          EXPECT_EQ(shown.at_pointer("/metrics/host/cpu_ratio"), 0.5);
        }(s));
      },
      Duration(60'000));
}

TEST_F(Logs, AreFollowedOverBreaksWithoutLossOrRepeats) {
  on_site([](Site& s) -> Task<void> {
    std::vector<std::int64_t> heard;
    std::string place;
    const auto writing = [&]() -> Task<void> {
      for (int i = 0; i < kLines; i += 25) {
        std::vector<LogRow> rows;
        for (int j = i + 1; j <= i + 25; ++j)
          rows.push_back(s.line("edge", j, "line " + std::to_string(j)));
        co_await s.write(std::move(rows));
        co_await sleep_for(Duration(20));
      }
    };
    TaskScope scope(s.backend.executor);
    SseListener first(s.backend, s.api.token, "/v1/logs:follow?device=in-edge");
    co_await first.connected();
    scope.spawn("writer", writing());
    auto* listener = &first;
    std::vector<std::unique_ptr<SseListener>> more;
    for (int breaks = 0; breaks < 4; ++breaks) {
      co_await listener->until_count(20);
      // The reader has seen only a part of what the server has written.
      const std::size_t part = listener->events.size() * 2 / 3;
      for (std::size_t i = 0; i < part; ++i)
        heard.push_back(listener->data(i).at("number").as_int64());
      place = listener->events[part - 1].id;
      co_await listener->stop();
      more.push_back(std::make_unique<SseListener>(s.backend, s.api.token,
                                                   "/v1/logs:follow?device=in-edge", place));
      listener = more.back().get();
    }
    co_await scope.join();
    co_await listener->until("the last line", [&] {
      return static_cast<int>(heard.size() + listener->events.size()) >= kLines;
    });
    co_await sleep_for(Duration(2500));  // one look for late lines more: nothing comes twice
    for (const std::int64_t number : numbers(*listener)) heard.push_back(number);
    co_await listener->stop();
    std::sort(heard.begin(), heard.end());
    std::vector<std::int64_t> all(kLines);
    for (int i = 0; i < kLines; ++i) all[static_cast<std::size_t>(i)] = i + 1;
    EXPECT_EQ(heard.size(), all.size());
    EXPECT_TRUE(heard == all);
    // An id of another server: the last seconds come again, nothing is missing.
    SseListener elsewhere(s.backend, s.api.token, "/v1/logs:follow?device=in-edge",
                          "unknown" + place.substr(place.find('.')));
    co_await elsewhere.until("the last line", [&] {
      const auto seen = numbers(elsewhere);
      return std::find(seen.begin(), seen.end(), kLines) != seen.end();
    });
    co_await elsewhere.stop();
    co_await refuse(s.api, {{"GET", "/v1/logs:follow?device=nosuch", "", 404, "no such device"}});
  });
}

}  // namespace
}  // namespace flock::targets

// SPDX-License-Identifier: Apache-2.0
// How long an organization's time series are kept, from the API down to a real ClickHouse.
#include <gtest/gtest.h>

#include "services/retention.h"
#include "targets/api_itest.h"

namespace flock::targets::itest {
namespace {

constexpr std::int64_t kDay = 86'400'000;

// Two tenants over a real ClickHouse.
struct Site {
  Site(Executor executor, Stack& from) : backend(executor, from), stack(from) {}
  Task<void> open() {
    if (const auto options = stack.clickhouse())
      backend.time_series = stores::make_clickhouse_time_series(backend.executor, *options);
    co_await backend.start();
    for (const char* name : {"usual", "short"}) {
      const std::string key = co_await backend.make_tenant(name);
      apis.push_back(std::make_unique<Api>(backend.executor, stack, key));
      const bj::value me = co_await apis.back()->call("GET", "/v1/whoami");
      orgs.push_back(text(me.at("organization"), "id"));
    }
  }
  std::string path(std::size_t which) const { return "/v1/organizations/" + orgs[which]; }
  Task<void> keep(std::size_t which, std::int64_t days) {
    co_await apis[which]->call("PATCH", path(which),
                               bj::object{{"retention", {{"telemetry_days", days}}}});
    EXPECT_EQ(apis[which]->last.status, 200) << apis[which]->last.body;
  }
  Task<std::size_t> days_kept(std::size_t which) {
    stores::MetricQuery query;
    query.subject.org = orgs[which];
    query.to_ms = INT64_MAX;
    co_return (co_await backend.time_series->range(query)).size();
  }
  // Rounds of retention until that many days are left.
  Task<void> settles(std::size_t which, std::size_t days) {
    const auto settled = [&]() -> Task<bool> {
      co_await services::expire_time_series(backend.db, *backend.time_series, {30, 14});
      co_return co_await days_kept(which) == days;
    };
    // 18.16 begins a deletion only when its idle threads wake, within 10 s.
    co_await eventually("the removal", settled, Duration(40'000));
  }
  Backend backend;
  Stack& stack;
  std::vector<std::unique_ptr<Api>> apis;
  std::vector<std::string> orgs;
};

class TimeSeriesRetention : public SiteTest<Site> {};

TEST_F(TimeSeriesRetention, IsWhatTheOrganizationSaysAndElseWhatIsConfigured) {
  if (!stack->clickhouse()) GTEST_SKIP() << "ClickHouse is not installed";
  on_site([](Site& site) -> Task<void> {
    co_await site.keep(1, 2);
    const std::int64_t now = to_unix_ms(system_clock().now());
    stores::Rows rows;
    for (const std::string& org : site.orgs) {
      for (int day = 0; day < 44; ++day)
        rows.metrics.push_back({{org, "f", "d", ""}, "load_1m", now - day * kDay, 1});
    }
    co_await site.backend.time_series->insert(std::move(rows));
    co_await site.settles(0, 31);  // today, and 30 whole days
    co_await site.settles(1, 3);
    const auto days = [&]() -> Task<std::int64_t> {
      const bj::value now = co_await site.apis[1]->call("GET", site.path(1));
      EXPECT_EQ(now.at("retention").at("logs_days").as_int64(), 14);
      co_return now.at("retention").at("telemetry_days").as_int64();
    };
    EXPECT_EQ(co_await days(), 2);
    co_await site.keep(1, 0);  // as configured
    EXPECT_EQ(co_await days(), 30);
  });
}

TEST_F(TimeSeriesRetention, RefusesWhatCannotBe) {
  on_site([](Site& site) -> Task<void> {
    for (const char* body : {"{}", R"({"retention":{}})", R"({"retention":{"logs_days":401}})",
                             R"({"retention":{"logs_days":-1}})", R"({"retention":5})",
                             R"({"retention":{"days":5}})"}) {
      co_await site.apis[0]->call("PATCH", site.path(0), std::string(body));
      EXPECT_EQ(site.apis[0]->last.status, 400) << body << site.apis[0]->last.body;
    }
  });
}

}  // namespace
}  // namespace flock::targets::itest

// SPDX-License-Identifier: Apache-2.0
#include "services/retention.h"

#include <algorithm>
#include <map>

#include "stores/postgres/retention_statements.h"

namespace flock::services {
namespace {

constexpr std::size_t kGroup = 5000;  // organizations in one statement

std::int64_t before(TimePoint now, int days) { return to_unix_ms(now - std::chrono::days(days)); }

// Adds what those who keep one kind for less than the longest do not keep. `of`: that kind.
void add_shorter(std::vector<stores::Expiry>& out, const std::vector<OrgRetention>& all,
                 int Retention::* kind, int longest, std::int64_t stores::Expiry::* of,
                 TimePoint now) {
  std::map<int, std::vector<std::string>> by_days;
  for (const OrgRetention& one : all) {
    if (one.keep.*kind < longest) by_days[one.keep.*kind].push_back(one.org);
  }
  for (const auto& [days, orgs] : by_days) {
    for (std::size_t at = 0; at < orgs.size(); at += kGroup) {
      stores::Expiry expiry;
      const auto end = static_cast<std::ptrdiff_t>(std::min(at + kGroup, orgs.size()));
      expiry.orgs.assign(orgs.begin() + static_cast<std::ptrdiff_t>(at), orgs.begin() + end);
      expiry.*of = before(now, days);
      out.push_back(std::move(expiry));
    }
  }
}

}  // namespace

std::vector<stores::Expiry> plan_expiry(const std::vector<OrgRetention>& all, Retention defaults,
                                        TimePoint now) {
  Retention longest = defaults;
  for (const OrgRetention& one : all) {
    longest.telemetry_days = std::max(longest.telemetry_days, one.keep.telemetry_days);
    longest.logs_days = std::max(longest.logs_days, one.keep.logs_days);
  }
  std::vector<stores::Expiry> out{
      {{}, before(now, longest.telemetry_days), before(now, longest.logs_days)}};
  add_shorter(out, all, &Retention::telemetry_days, longest.telemetry_days,
              &stores::Expiry::telemetry_before_ms, now);
  add_shorter(out, all, &Retention::logs_days, longest.logs_days, &stores::Expiry::logs_before_ms,
              now);
  return out;
}

Task<void> expire_time_series(postgres::Database& db, stores::TimeSeries& time_series,
                              Retention defaults) {
  std::vector<OrgRetention> all;
  const auto found = co_await db.query(postgres::Scope::system(), postgres::sql::kRetentionOfAll);
  for (const auto& row : found.rows) {
    OrgRetention one{row.text("id"), defaults};
    if (const auto days = row.optional_integer("telemetry_retention_days"))
      one.keep.telemetry_days = static_cast<int>(*days);
    if (const auto days = row.optional_integer("logs_retention_days"))
      one.keep.logs_days = static_cast<int>(*days);
    all.push_back(std::move(one));
  }
  for (stores::Expiry& expiry : plan_expiry(all, defaults, system_clock().now()))
    co_await time_series.expire(std::move(expiry));
}

}  // namespace flock::services

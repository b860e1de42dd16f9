// SPDX-License-Identifier: Apache-2.0
#include "services/rollout_turns.h"

#include <algorithm>

#include "domain/maintenance_window.h"
#include "stores/postgres/rollout_statements.h"

namespace flock::services {
namespace {

namespace sql = postgres::sql;
using postgres::Params;
using postgres::Row;

Params of(const LockedRollout& rollout) { return Params().text(rollout.org).text(rollout.id); }

Params retries_of(const LockedRollout& rollout) {
  return of(rollout)
      .integer(rollout.plan.retries.times)
      .integer(rollout.plan.retries.after.count());
}

}  // namespace

Task<void> look_at_windows(postgres::Transaction& tx, const LockedRollout& rollout,
                           domain::RolloutSeen& seen) {
  if (rollout.plan.windows.empty()) co_return;
  const auto zones =
      co_await tx.query(sql::kWaitingByZone, of(rollout).integer(rollout.progress.stage));
  const TimePoint now = from_unix_ms(seen.now_ms);
  domain::StageCounts& counts = seen.counts;
  counts.waiting_online = counts.waiting_offline = 0;
  for (const Row& row : zones.rows) {
    const std::string& zone = row.text("zone");
    if (domain::is_open(rollout.plan.windows, zone, now)) {
      counts.waiting_online += row.integer("online");
      counts.waiting_offline += row.integer("offline");
      seen.open_zones.push_back(zone);
      continue;
    }
    counts.waiting_closed += row.integer("online") + row.integer("offline");
    if (const auto next = domain::next_opening(rollout.plan.windows, zone, now)) {
      const std::int64_t at = to_unix_ms(*next);
      seen.next_opening_ms = seen.next_opening_ms == 0 ? at : std::min(seen.next_opening_ms, at);
    }
  }
}

Task<void> look_at_retries(postgres::Transaction& tx, const LockedRollout& rollout,
                           domain::RolloutSeen& seen) {
  if (rollout.plan.retries.times == 0) co_return;
  const auto rows = co_await tx.query(sql::kRetryCounts, retries_of(rollout));
  seen.counts.to_retry = rows.rows.at(0).integer("due");
  seen.counts.retry_later = rows.rows.at(0).integer("later");
}

Task<void> retry_due(postgres::Transaction& tx, const LockedRollout& rollout) {
  co_await tx.query(sql::kRolloutRetry, retries_of(rollout));
}

Task<void> retry_all(postgres::Transaction& tx, const LockedRollout& rollout) {
  co_await tx.query(sql::kRolloutRetryAll, of(rollout));
}

}  // namespace flock::services

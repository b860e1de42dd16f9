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

Params by_label(const LockedRollout& rollout, const domain::RolloutSeen& seen) {
  const domain::RolloutPlan& plan = rollout.plan;
  return of(rollout)
      .text(plan.limits.down.label)
      .integer(plan.limits.down.count)
      .boolean(!domain::patience_is_over(plan, rollout.progress, seen.now_ms))
      .integer(plan.offline_patience.count());
}

Params waiting_by_label(const LockedRollout& rollout, const domain::RolloutSeen& seen) {
  Params params = by_label(rollout, seen).integer(rollout.progress.stage);
  return rollout.plan.windows.empty() ? params.text(std::nullopt) : params.texts(seen.open_zones);
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

Task<void> look_at_down_limit(postgres::Transaction& tx, const LockedRollout& rollout,
                              domain::RolloutSeen& seen) {
  domain::StageCounts& counts = seen.counts;
  const bool back = rollout.progress.returning;
  std::int64_t& free = back ? counts.to_return : counts.waiting_online;
  if (!rollout.plan.limits.down.any() || free == 0) co_return;
  const auto rows = back ? co_await tx.query(sql::kReturnByLabel, by_label(rollout, seen))
                         : co_await tx.query(sql::kWaitingByLabel, waiting_by_label(rollout, seen));
  free = rows.rows.at(0).integer("free");
  (back ? counts.return_held : counts.waiting_held) = rows.rows.at(0).integer("held");
}

Task<void> look_at_retries(postgres::Transaction& tx, const LockedRollout& rollout,
                           domain::RolloutSeen& seen) {
  if (rollout.plan.retries.times == 0) co_return;
  const auto rows = co_await tx.query(sql::kRetryCounts, retries_of(rollout));
  seen.counts.to_retry = rows.rows.at(0).integer("due");
  seen.counts.retry_later = rows.rows.at(0).integer("later");
}

Task<void> let_go(postgres::Transaction& tx, const LockedRollout& rollout,
                  const domain::RolloutSeen& seen, std::int64_t count, bool only_online) {
  if (only_online && rollout.plan.limits.down.any()) {
    co_await tx.query(sql::kRolloutLetGoByLabel, waiting_by_label(rollout, seen).integer(count));
    co_return;
  }
  Params params = of(rollout).integer(rollout.progress.stage).integer(count);
  if (rollout.plan.windows.empty())
    co_await tx.query(sql::kRolloutLetGo, std::move(params.boolean(only_online)));
  else
    co_await tx.query(sql::kRolloutLetGoIn, std::move(params.texts(seen.open_zones)));
}

Task<void> take_back(postgres::Transaction& tx, const LockedRollout& rollout,
                     const domain::RolloutSeen& seen, std::int64_t count) {
  if (rollout.plan.limits.down.any())
    co_await tx.query(sql::kRolloutReturnByLabel, by_label(rollout, seen).integer(count));
  else
    co_await tx.query(sql::kRolloutReturn, of(rollout).integer(count));
}

Task<void> retry_due(postgres::Transaction& tx, const LockedRollout& rollout) {
  co_await tx.query(sql::kRolloutRetry, retries_of(rollout));
}

Task<void> retry_all(postgres::Transaction& tx, const LockedRollout& rollout) {
  co_await tx.query(sql::kRolloutRetryAll, of(rollout));
}

}  // namespace flock::services

// SPDX-License-Identifier: Apache-2.0
#include "services/release_retention.h"

#include "base/log.h"
#include "services/audited.h"
#include "services/releases.h"
#include "stores/postgres/statements.h"

namespace flock::services {
namespace {

namespace sql = postgres::sql;
using internal::v1::AuditEvent;
using postgres::Params;
using postgres::Scope;

constexpr std::int64_t kBatch = 50;

Task<int> retire_of(postgres::Database& db, AuditTrail& audit, OrgId org) {
  int gone = 0;
  const auto work = [&](postgres::Transaction& tx) -> Task<std::vector<AuditEvent>> {
    std::vector<AuditEvent> events;
    const auto old =
        co_await tx.query(sql::kRetentionExpired, Params().text(org.text()).integer(kBatch));
    for (const auto& row : old.rows) {
      // Between that look and this lock somebody may have deployed it.
      const auto locked =
          co_await tx.query(sql::kReleaseLock, Params().text(org.text()).text(row.text("id")));
      if (locked.empty()) continue;
      const auto use = co_await release_use(tx, org, row.text("id"));
      if (use.any()) continue;
      co_await tx.query(sql::kReleaseDelete, Params().text(org.text()).text(row.text("id")));
      AuditEvent event = audit_event(AuditEvent::SYSTEM, org.text(), "deleteRelease", "release",
                                     row.text("id"), locked.rows.front().text("version"));
      event.set_actor_name("release retention");
      events.push_back(std::move(event));
    }
    gone = static_cast<int>(events.size());
    co_return events;
  };
  co_await audited_transaction(db, audit, Scope::tenant(org), work);
  co_return gone;
}

}  // namespace

Task<int> retire_releases(postgres::Database& db, AuditTrail& audit) {
  int gone = 0;
  const auto organizations = co_await db.query(Scope::system(), sql::kRetentionOrganizations);
  for (const auto& row : organizations.rows) {
    const OrgId org = OrgId::trusted(row.text("org_id"));
    const int here = co_await retire_of(db, audit, org);
    if (here > 0)
      log::info("old releases were removed",
                {{"org", org.text()}, {"releases", std::to_string(here)}});
    gone += here;
  }
  co_return gone;
}

}  // namespace flock::services

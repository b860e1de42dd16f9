// SPDX-License-Identifier: Apache-2.0
#include "services/audited.h"

#include "async/loop.h"
#include "base/id.h"
#include "base/log.h"
#include "stores/postgres/statements.h"

namespace flock::services {
namespace {

namespace sql = postgres::sql;
constexpr int kLooksForCommit = 10;

// Whether a transaction whose commit was not answered was committed: PostgreSQL remembers. False
// also when it cannot be found out, which is logged.
Task<bool> was_committed(postgres::Database& db, std::string transaction_id) {
  for (int look = 0; look < kLooksForCommit; ++look) {
    try {
      const auto rows = co_await db.query(postgres::Scope::system(), sql::kTransactionStatus,
                                          postgres::Params().text(transaction_id));
      const auto status = rows.rows.at(0).optional_text("status");
      if (status == "committed") co_return true;
      if (status == "aborted") co_return false;
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
    }
    co_await sleep_for(Duration(300));
  }
  log::error("it is not known whether a change was committed", {{"transaction", transaction_id}});
  co_return false;
}

}  // namespace

Task<void> audited_transaction(postgres::Database& db, AuditTrail& audit, postgres::Scope scope,
                               AuditedWork work) {
  std::vector<internal::v1::AuditEvent> announced;
  std::string transaction_id;
  const auto take_back = [&]() -> Task<void> {
    for (auto& event : std::exchange(announced, {})) co_await audit.aborted(std::move(event));
  };
  const auto attempt = [&](postgres::Transaction& tx) -> Task<void> {
    co_await take_back();  // a serialization failure: the first attempt changed nothing
    auto events = co_await work(tx);
    if (events.empty()) co_return;
    const auto current = co_await tx.query(sql::kTransactionId);
    transaction_id = current.rows.at(0).text("id");
    for (auto& event : events) {
      co_await audit.record(event);
      announced.push_back(std::move(event));
    }
  };
  std::exception_ptr failure;
  try {
    co_await db.transaction(std::move(scope), attempt);
  } catch (const Error&) {
    failure = std::current_exception();
  }
  if (!failure) co_return;
  if (!announced.empty() && co_await was_committed(db, transaction_id)) co_return;
  co_await take_back();
  std::rethrow_exception(failure);
}

internal::v1::AuditEvent audit_event(internal::v1::AuditEvent::ActorKind actor, std::string org,
                                     std::string action, std::string resource_type,
                                     std::string resource_id, std::string resource_name) {
  internal::v1::AuditEvent event;
  event.set_id(new_uuid());
  event.set_org_id(std::move(org));
  event.set_at_ms(to_unix_ms(system_clock().now()));
  event.set_actor_kind(actor);
  event.set_action(std::move(action));
  event.set_resource_type(std::move(resource_type));
  event.set_resource_id(std::move(resource_id));
  event.set_resource_name(std::move(resource_name));
  return event;
}

}  // namespace flock::services

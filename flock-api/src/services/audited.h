// SPDX-License-Identifier: Apache-2.0
// A change that Flock makes by itself or for a device: in the audit log before it is committed,
// like those that people ask for (targets/api/call.h).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "services/audit_trail.h"
#include "stores/postgres/database.h"

namespace flock::services {

// Runs `work` in one transaction, tells the audit log what it returned, and commits. Throws
// kUnavailable, with nothing changed, when the log cannot be told. `work` may run more than once.
using AuditedWork =
    std::function<Task<std::vector<internal::v1::AuditEvent>>(postgres::Transaction&)>;
Task<void> audited_transaction(postgres::Database& db, AuditTrail& audit, postgres::Scope scope,
                               AuditedWork work);

// Whether a transaction whose commit was not answered was committed: PostgreSQL remembers. False
// also when it cannot be found out, which is logged.
Task<bool> was_committed(postgres::Database& db, std::string transaction_id);

// An event of now with a fresh id.
internal::v1::AuditEvent audit_event(internal::v1::AuditEvent::ActorKind actor, std::string org,
                                     std::string action, std::string resource_type,
                                     std::string resource_id, std::string resource_name);

}  // namespace flock::services

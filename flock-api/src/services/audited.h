// SPDX-License-Identifier: Apache-2.0
// A change that is in the audit log before it is committed: those that Flock makes by itself or for
// a device, and under Call::mutate those that people ask for.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "services/audit_trail.h"
#include "stores/postgres/database.h"

namespace flock::services {

// Runs `work` in one transaction, tells the audit log what it returned (nothing to tell: no
// events), and commits. Throws kUnavailable, with nothing changed, when the log cannot be told.
// When the commit's answer is lost, PostgreSQL is asked how it went. `work` may run more than once.
using AuditedWork =
    std::function<Task<std::vector<internal::v1::AuditEvent>>(postgres::Transaction&)>;
Task<void> audited_transaction(postgres::Database& db, AuditTrail& audit, postgres::Scope scope,
                               AuditedWork work);

// An event of now with a fresh id.
internal::v1::AuditEvent audit_event(internal::v1::AuditEvent::ActorKind actor, std::string org,
                                     std::string action, std::string resource_type,
                                     std::string resource_id, std::string resource_name);

}  // namespace flock::services

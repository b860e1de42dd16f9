// SPDX-License-Identifier: Apache-2.0
// Old releases go when their organization said how many to keep. Never one that a device wants or
// wanted last, that a fleet has as its own, or that is under way; never a draft.
#pragma once

#include "services/audit_trail.h"
#include "stores/postgres/database.h"

namespace flock::services {

// One batch for each organization; returns how many went. Each is in the audit log, as
// deleteRelease by Flock itself.
Task<int> retire_releases(postgres::Database& db, AuditTrail& audit);

}  // namespace flock::services

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "audit/chain.h"
#include "stores/audit/audit_store.h"
#include "targets/settings.h"

namespace flock::targets {

inline constexpr const char* kAuditTopic = "flock/internal/v1/audit";

// As audit.kind says; the api target reads with one of its own.
std::unique_ptr<stores::AuditStore> make_audit_store(Executor executor, const Settings& settings);
// An AuditEvent of proto/flock/internal/v1; nothing when it cannot be one.
std::optional<audit::Event> read_audit_event(const std::string& payload);

}  // namespace flock::targets

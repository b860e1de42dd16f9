// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <variant>

#include "domain/networks.h"
#include "services/audit_trail.h"
#include "services/credentials.h"
#include "stores/postgres/database.h"

namespace flock::services {

struct Registration {
  std::string provisioning_key, device_public_key, wireguard_public_key, assertion, name,
      hardware_json, architecture, variant, hostname, agent_version;
  std::optional<domain::Address> from;  // where the request came from; nothing: not known
  std::string request_id;               // for the audit log
};
struct Registered {
  DeviceIdentity identity;
  std::string name;
  bool created = false;
};
// The key asks for an administrator's word, which has not come yet.
struct Waiting {
  std::string request;  // id of the device request
};
// Idempotent on the device's public key: a repeated call gives the same device, whatever became of
// the provisioning key. A new device or request is in the audit log before it is stored. Throws
// kUnauthenticated (assertion), kUnavailable (no audit log), kForbidden with a message that begins
// with provisioning_key_..., device_request_rejected or device_revoked.
Task<std::variant<Registered, Waiting>> register_device(postgres::Database& db, AuditTrail& audit,
                                                        Registration registration, TimePoint now);

// The device behind an assertion; for renewals. Throws kUnauthenticated (unknown, bad assertion) or
// kForbidden (revoked).
Task<Registered> renew_device(postgres::Database& db, DeviceId device, std::string assertion,
                              TimePoint now);

}  // namespace flock::services

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "services/credentials.h"
#include "stores/postgres/database.h"

namespace flock::services {

struct Registration {
  std::string provisioning_key, device_public_key, wireguard_public_key, assertion, name,
      hardware_json, architecture, variant, hostname, agent_version;
};
struct Registered {
  DeviceIdentity identity;
  std::string name;
  bool created = false;
};
// Idempotent on the device's public key: a repeated call gives the same device, whatever became of
// the provisioning key. Throws kUnauthenticated (assertion), kForbidden with a message that begins
// with provisioning_key_... or device_revoked.
Task<Registered> register_device(postgres::Database& db, Registration registration, TimePoint now);

// The device behind an assertion; for renewals. Throws kUnauthenticated (unknown, bad assertion) or
// kForbidden (revoked).
Task<Registered> renew_device(postgres::Database& db, DeviceId device, std::string assertion,
                              TimePoint now);

}  // namespace flock::services

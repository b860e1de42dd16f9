// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/id.h"
#include "oci/registry_client.h"
#include "stores/postgres/database.h"

namespace flock::services {

struct NewRelease {
  std::optional<std::string> version, note;
  std::string compose;
};

// A release whose every image is locked to its digests; not stored yet.
struct LockedRelease {
  std::optional<std::string> version, note;
  std::string compose, workload, digest, notes;
};
// Throws what parse_compose throws; 422 problems at /services/NAME/image for images that are not
// there, kUnavailable when a registry is away, kTooLarge.
Task<LockedRelease> lock_release(oci::RegistryClient& registry, NewRelease release);
// Without a version it gets the organization's next number. Throws kConflict when the version is
// taken.
Task<ReleaseId> store_release(postgres::Transaction& tx, OrgId org, const LockedRelease& release);

}  // namespace flock::services

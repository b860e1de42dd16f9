// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
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
  std::vector<std::string> tags = {};
  bool draft = false;
};

// A release whose every image is locked to its digests; not stored yet.
struct LockedRelease {
  std::optional<std::string> version, note;
  std::string compose, workload, digest, notes;
  std::vector<std::string> tags = {};
  bool draft = false;
};
// Throws what parse_compose throws; 422 problems at /services/NAME/image for images that are not
// there, kUnavailable when a registry is away, kTooLarge.
Task<LockedRelease> lock_release(oci::RegistryClient& registry, NewRelease release);
// Without a version it gets the organization's next number. Throws kConflict when the version is
// taken.
Task<ReleaseId> store_release(postgres::Transaction& tx, OrgId org, const LockedRelease& release);

// What still needs a release; asked with the release locked, in a scope that sees every fleet.
struct ReleaseUse {
  std::int64_t devices = 0, fleets = 0, deployments = 0;
  bool any() const noexcept { return devices + fleets + deployments > 0; }
  std::string describe() const;  // "3 devices, 1 deployment under way"
};
Task<ReleaseUse> release_use(postgres::Transaction& tx, OrgId org, std::string release);

}  // namespace flock::services

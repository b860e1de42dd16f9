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

// Parses, locks every image to its digests, stores; the result is never changed. Throws what
// parse_compose throws; 422 problems at /services/NAME/image for images that are not there,
// kUnavailable when a registry is away.
Task<ReleaseId> create_release(postgres::Database& db, oci::RegistryClient& registry, OrgId org,
                               NewRelease release);

}  // namespace flock::services

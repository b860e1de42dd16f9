// SPDX-License-Identifier: Apache-2.0
// Whom a deployment would reach as things are now, before anything is done.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "services/deployment_checks.h"
#include "workload/workload.h"

namespace flock::services {

// Devices of one platform that are in it.
struct PlatformGroup {
  std::string platform;  // "linux/arm/v7"
  std::int64_t devices = 0, online = 0;
  std::int64_t have_it = 0;                                 // are to run the release already
  std::vector<std::string> missing;                         // services without an image for it
  std::vector<std::pair<std::string, std::string>> images;  // the others: repository, digest
};

struct Outside {
  std::string why;  // REVOKED, FILTER or CONFLICT
  std::int64_t devices = 0;
  std::vector<std::string> names;  // of up to five of them
};

struct Survey {
  std::int64_t devices = 0, offline = 0;
  std::vector<std::string> names;  // of up to five of them
  std::vector<PlatformGroup> groups;
  std::vector<Outside> outside;  // of the same fleet or list
  std::vector<Conflict> conflicts;
  std::string members;  // the same for the same devices

  std::int64_t have_it() const;
};
// `release` is a row with the columns of a release; without one nobody is told apart by it.
Task<Survey> survey(postgres::Transaction& tx, std::string org, Claim claim,
                    std::optional<postgres::Row> release);

}  // namespace flock::services

// SPDX-License-Identifier: Apache-2.0
// Which devices a command is about: names, --fleet, -l, --filter or --all, the same everywhere.
#pragma once

#include <string>
#include <vector>

#include "command.h"

namespace flock::cli {

struct Selection {
  std::string fleet;   // slug or id
  std::string filter;  // the API's expression
  bool all = false;
  bool empty() const { return fleet.empty() && filter.empty() && !all; }
  // "fleet_id=…&filter=…" for GET /v1/devices; "" for every device.
  std::string query() const;
};
Selection selection_of(const Session& session);

// "site=oslo,stage!=test" -> labels.site = "oslo" AND labels.stage != "test".
std::string label_filter(const std::string& labels);

// The devices a mutating command is about, as id and name: the words, else those the flags select.
// Several are asked for once: `what` is "Revoke".
struct Target {
  std::string id, name;
};
std::vector<Target> choose_devices(Session& session, const std::string& what);

}  // namespace flock::cli

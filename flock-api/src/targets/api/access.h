// SPDX-License-Identifier: Apache-2.0
// What members, invitations and API keys have in common: a role, perhaps limited to fleets.
#pragma once

#include "targets/api/call.h"

namespace flock::targets::api {

struct Access {
  domain::Role role = domain::Role::kViewer;
  std::optional<std::vector<std::string>> fleets;  // ids or slugs; nothing: every fleet
};
// Reads `role` and `fleet_ids`; faults go to `in`.
Access read_access(json::Reader& in);
// The ids of the fleets that it names. Throws kNotFound.
Task<std::optional<std::vector<std::string>>> resolve_fleets(Call& call, const Access& access);
// Nobody gives, changes or takes a role above his own. Throws kForbidden.
void check_grant(const Principal& who, domain::Role role);

// Between a row's `fleet_ids` (text with commas, or NULL) and JSON, and a parameter.
std::optional<bj::array> fleets_json(const Row& row);
std::optional<std::string> array_text(const Row& row);
Params fleets_param(Params params, const std::optional<std::vector<std::string>>& fleets);

}  // namespace flock::targets::api

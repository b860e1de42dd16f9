// SPDX-License-Identifier: Apache-2.0
#include "targets/api/access.h"

namespace flock::targets::api {

Access read_access(json::Reader& in) {
  Access access;
  const auto role = domain::parse_role(in.string("role", {.min = 1, .max = 20}));
  if (role)
    access.role = *role;
  else
    in.problem("role", "invalid", "must be viewer, developer, admin or owner");
  if (in.optional_value("fleet_ids") != nullptr) {
    access.fleets = in.optional_strings("fleet_ids", 100, {.min = 1, .max = 63});
    if (access.fleets->empty())
      in.problem("fleet_ids", "invalid", "must name a fleet; leave it out for every fleet");
    if (access.role == domain::Role::kOwner)
      in.problem("fleet_ids", "invalid", "an owner cannot be limited to fleets");
  }
  return access;
}

Task<std::optional<std::vector<std::string>>> resolve_fleets(Call& call, const Access& access) {
  if (!access.fleets) co_return std::nullopt;
  co_return co_await find_fleets(call, *access.fleets);
}

void check_grant(const Principal& who, domain::Role role) {
  if (who.role && role <= *who.role) return;
  throw Error(Code::kForbidden, "the role " + std::string(to_string(role)) + " is above your own")
      .hint("ask an " + std::string(to_string(role)) + " of the organization");
}

std::optional<bj::array> fleets_json(const Row& row) {
  const auto ids = row.optional_texts("fleet_ids");
  if (!ids) return std::nullopt;
  return bj::value_from(*ids).as_array();
}

std::optional<std::string> array_text(const Row& row) {
  const auto text = row.optional_text("fleet_ids");
  if (!text) return std::nullopt;
  return "{" + *text + "}";
}

Params fleets_param(Params params, const std::optional<std::vector<std::string>>& fleets) {
  if (fleets)
    params.texts(*fleets);
  else
    params.text(std::nullopt);
  return params;
}

}  // namespace flock::targets::api

// SPDX-License-Identifier: Apache-2.0
#include "domain/rbac.h"

#include <array>

namespace flock::domain {
namespace {

constexpr std::array<std::string_view, 4> kRoles = {"viewer", "developer", "admin", "owner"};

struct Rule {
  Permission permission;
  std::string_view name;
  Role least;      // the lowest role that has it
  bool in_fleets;  // also for somebody who is limited to fleets
};

// The one table of who may do what (docs/access.md prints it).
constexpr std::array<Rule, static_cast<std::size_t>(Permission::kCount)> kRules = {{
    {Permission::kOrganizationRead, "organization:read", Role::kViewer, true},
    {Permission::kOrganizationWrite, "organization:write", Role::kAdmin, false},
    {Permission::kMembersRead, "members:read", Role::kViewer, false},
    {Permission::kMembersWrite, "members:write", Role::kAdmin, false},
    {Permission::kTokensRead, "tokens:read", Role::kAdmin, false},
    {Permission::kTokensWrite, "tokens:write", Role::kAdmin, false},
    {Permission::kAuditRead, "audit:read", Role::kAdmin, false},
    {Permission::kFleetsRead, "fleets:read", Role::kViewer, true},
    {Permission::kFleetsWrite, "fleets:write", Role::kDeveloper, true},
    {Permission::kKeysRead, "keys:read", Role::kDeveloper, true},
    {Permission::kKeysWrite, "keys:write", Role::kDeveloper, true},
    {Permission::kDevicesRead, "devices:read", Role::kViewer, true},
    {Permission::kDevicesWrite, "devices:write", Role::kDeveloper, true},
    {Permission::kCommandsWrite, "commands:write", Role::kDeveloper, true},
    {Permission::kCommandsCritical, "commands:critical", Role::kAdmin, true},
    {Permission::kLogsRead, "logs:read", Role::kViewer, true},
    {Permission::kReleasesRead, "releases:read", Role::kViewer, true},
    {Permission::kReleasesWrite, "releases:write", Role::kDeveloper, true},
    {Permission::kDeploymentsRead, "deployments:read", Role::kViewer, true},
    {Permission::kDeploymentsWrite, "deployments:write", Role::kDeveloper, true},
    {Permission::kVariablesRead, "variables:read", Role::kViewer, true},
    {Permission::kVariablesWrite, "variables:write", Role::kDeveloper, true},
    {Permission::kSubscriptionsRead, "subscriptions:read", Role::kAdmin, false},
    {Permission::kSubscriptionsWrite, "subscriptions:write", Role::kAdmin, false},
}};

const Rule& rule(Permission permission) { return kRules[static_cast<std::size_t>(permission)]; }

}  // namespace

std::string_view to_string(Role role) noexcept { return kRoles[static_cast<std::size_t>(role)]; }

std::optional<Role> parse_role(std::string_view text) noexcept {
  for (std::size_t i = 0; i < kRoles.size(); ++i) {
    if (kRoles[i] == text) return static_cast<Role>(i);
  }
  return std::nullopt;
}

std::vector<std::string> role_names() { return {kRoles.begin(), kRoles.end()}; }

std::string_view to_string(Permission permission) noexcept { return rule(permission).name; }

std::optional<Permission> parse_permission(std::string_view text) noexcept {
  for (const Rule& each : kRules) {
    if (each.name == text) return each.permission;
  }
  return std::nullopt;
}

std::vector<std::string> permission_names() {
  std::vector<std::string> names;
  for (const Rule& each : kRules) names.emplace_back(each.name);
  return names;
}

std::vector<std::string> Permissions::names() const {
  std::vector<std::string> names;
  for (const Rule& each : kRules) {
    if (has(each.permission)) names.emplace_back(each.name);
  }
  return names;
}

Permissions permissions_of(Role role, bool limited) {
  Permissions out;
  for (const Rule& each : kRules) {
    if (role >= each.least && (!limited || each.in_fleets)) out.add(each.permission);
  }
  return out;
}

}  // namespace flock::domain

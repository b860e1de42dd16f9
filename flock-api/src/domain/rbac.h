// SPDX-License-Identifier: Apache-2.0
// Who may do what. A role is what a member is in an organization; a permission is what an operation
// asks for, and at the same time what an API key may be narrowed to (its scopes).
#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace flock::domain {

enum class Role : std::uint8_t { kViewer, kDeveloper, kAdmin, kOwner };  // each may all before it
std::string_view to_string(Role role) noexcept;                          // "viewer", ...
std::optional<Role> parse_role(std::string_view text) noexcept;
std::vector<std::string> role_names();

enum class Permission : std::uint8_t {
  kOrganizationRead,
  kOrganizationWrite,
  kMembersRead,
  kMembersWrite,
  kTokensRead,
  kTokensWrite,
  kAuditRead,
  kFleetsRead,
  kFleetsWrite,
  kKeysRead,
  kKeysWrite,
  kDevicesRead,
  kDevicesWrite,
  kCommandsWrite,
  kCommandsCritical,
  kLogsRead,
  kReleasesRead,
  kReleasesWrite,
  kDeploymentsRead,
  kDeploymentsWrite,
  kVariablesRead,
  kVariablesWrite,
  kSubscriptionsRead,
  kSubscriptionsWrite,
  kCount
};
std::string_view to_string(Permission permission) noexcept;  // "fleets:write", ...: a scope
std::optional<Permission> parse_permission(std::string_view text) noexcept;
std::vector<std::string> permission_names();

class Permissions {
 public:
  bool has(Permission permission) const { return bits_[static_cast<std::size_t>(permission)]; }
  void add(Permission permission) { bits_.set(static_cast<std::size_t>(permission)); }
  // What both have.
  Permissions operator&(const Permissions& other) const {
    Permissions out;
    out.bits_ = bits_ & other.bits_;
    return out;
  }
  // Whether `other` has nothing that is not here.
  bool cover(const Permissions& other) const { return (other.bits_ & ~bits_).none(); }
  std::vector<std::string> names() const;

 private:
  std::bitset<static_cast<std::size_t>(Permission::kCount)> bits_;
};

// `limited` to some fleets: what belongs to the organization as a whole cannot be changed, and its
// members, tokens and audit log not be read.
Permissions permissions_of(Role role, bool limited);

}  // namespace flock::domain

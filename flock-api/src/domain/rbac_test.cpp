// SPDX-License-Identifier: Apache-2.0
#include "domain/rbac.h"

#include <gtest/gtest.h>

namespace flock::domain {
namespace {

TEST(Rbac, EveryPermissionIsItsOwnRuleAndItsOwnName) {
  const auto names = permission_names();
  ASSERT_EQ(names.size(), static_cast<std::size_t>(Permission::kCount));
  for (std::size_t i = 0; i < names.size(); ++i) {
    EXPECT_EQ(parse_permission(names[i]), static_cast<Permission>(i)) << names[i];
    EXPECT_EQ(to_string(static_cast<Permission>(i)), names[i]);
  }
  EXPECT_FALSE(parse_permission("fleets:"));
}

TEST(Rbac, AHigherRoleMayAllThatALowerMay) {
  const Role roles[] = {Role::kViewer, Role::kDeveloper, Role::kAdmin, Role::kOwner};
  for (std::size_t i = 1; i < 4; ++i) {
    for (const bool limited : {false, true}) {
      EXPECT_TRUE(permissions_of(roles[i], limited).cover(permissions_of(roles[i - 1], limited)));
    }
    EXPECT_EQ(parse_role(to_string(roles[i])), roles[i]);
  }
  EXPECT_EQ(permissions_of(Role::kOwner, false).names(), permission_names());
}

TEST(Rbac, AViewerChangesNothing) {
  for (const std::string& name : permissions_of(Role::kViewer, false).names())
    EXPECT_TRUE(name.ends_with(":read")) << name;
}

TEST(Rbac, WhoIsLimitedToFleetsHasNoSayInTheOrganization) {
  const Permissions owner = permissions_of(Role::kOwner, true);
  EXPECT_TRUE(owner.has(Permission::kDevicesWrite));
  for (const Permission each : {Permission::kMembersRead, Permission::kTokensWrite,
                                Permission::kAuditRead, Permission::kOrganizationWrite})
    EXPECT_FALSE(owner.has(each)) << to_string(each);
}

}  // namespace
}  // namespace flock::domain

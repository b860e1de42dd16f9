// SPDX-License-Identifier: Apache-2.0
#include "domain/release_diff.h"

#include <gtest/gtest.h>

namespace flock::domain {
namespace {

workload::Service service(std::string name, std::string digest) {
  workload::Service out;
  out.name = std::move(name);
  out.image = "registry.example/acme/" + out.name + ":1";
  out.repository = "registry.example/acme/" + out.name;
  out.digests = {{"linux/amd64", digest}, {"linux/arm64", "sha256:same"}};
  out.environment = {{"LEVEL", "info"}};
  return out;
}

std::vector<std::string> names(const std::vector<FieldChange>& changes) {
  std::vector<std::string> out;
  for (const FieldChange& each : changes) out.push_back(each.field);
  return out;
}

TEST(ReleaseDiff, OfEqualReleasesIsEmpty) {
  workload::Workload one;
  one.services = {service("web", "sha256:a")};
  one.volumes = {"data"};
  EXPECT_TRUE(diff_releases(one, one).empty());
  EXPECT_TRUE(diff_releases({}, {}).empty());
}

TEST(ReleaseDiff, NamesServicesThatCameWentAndChanged) {
  workload::Workload from, to;
  from.services = {service("camera", "sha256:a"), service("old", "sha256:a"),
                   service("web", "sha256:a")};
  to.services = {service("camera", "sha256:a"), service("new", "sha256:a"),
                 service("web", "sha256:b")};
  const ReleaseDiff diff = diff_releases(from, to);
  ASSERT_EQ(diff.services.size(), 3u);
  EXPECT_EQ(diff.services[0].name + std::string(to_string(diff.services[0].change)), "newADDED");
  EXPECT_EQ(diff.services[1].name + std::string(to_string(diff.services[1].change)), "oldREMOVED");
  EXPECT_EQ(diff.services[2].name + std::string(to_string(diff.services[2].change)), "webCHANGED");
  ASSERT_EQ(names(diff.services[2].fields), (std::vector<std::string>{"digests.linux/amd64"}));
  EXPECT_EQ(diff.services[2].fields[0].from, R"("sha256:a")");
  EXPECT_EQ(diff.services[2].fields[0].to, R"("sha256:b")");
}

TEST(ReleaseDiff, GoesThroughEveryFieldAndEachKeyOfAMap) {
  workload::Workload from, to;
  from.services = {service("web", "sha256:a")};
  to.services = from.services;
  workload::Service& web = to.services[0];
  web.command = {"serve", "--fast"};
  web.environment = {{"LEVEL", "debug"}, {"EXTRA", "1"}};
  web.labels = {{"team", "edge"}};
  web.ports = {{"", 80, 8080, "tcp"}};
  web.privileged = true;
  web.memory_bytes = 1 << 20;
  web.digests.erase("linux/arm64");
  const ReleaseDiff diff = diff_releases(from, to);
  ASSERT_EQ(diff.services.size(), 1u);
  EXPECT_EQ(names(diff.services[0].fields),
            (std::vector<std::string>{"command", "digests.linux/arm64", "environment.EXTRA",
                                      "environment.LEVEL", "labels.team", "memory_bytes", "ports",
                                      "privileged"}));
  EXPECT_TRUE(diff.services[0].fields[1].to.empty());
  EXPECT_TRUE(diff.services[0].fields[2].from.empty());
}

TEST(ReleaseDiff, IncludesVolumesAndNetworks) {
  workload::Workload from, to;
  to.volumes = {"data"};
  to.networks = {{"back", true}};
  const ReleaseDiff diff = diff_releases(from, to);
  EXPECT_TRUE(diff.services.empty());
  EXPECT_EQ(names(diff.others), (std::vector<std::string>{"networks", "volumes"}));
}

TEST(Version, ThatLooksSemanticMustBe) {
  for (const char* good : {"1.2.3", "v1.2.3", "0.0.0", "1.0.0-rc.1", "1.0.0-alpha-x.10+build.007",
                           "1.2.3+4", "7", "2026.11", "nightly", "1.2", "v2", "1.x.3", "1.2."})
    EXPECT_EQ(version_fault(good), "") << good;
  for (const char* bad : {"1.02.3", "01.2.3", "1.2.3.4", "1.2.3-", "1.2.3-rc..1", "1.2.3-rc.01",
                          "1.2.3+", "1.2.3+a..b", "1.2.3 beta", "1.2.3-rc_1", "v1.2.3rc1"})
    EXPECT_NE(version_fault(bad), "") << bad;
}

}  // namespace
}  // namespace flock::domain

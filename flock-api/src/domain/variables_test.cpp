// SPDX-License-Identifier: Apache-2.0
#include "domain/variables.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "base/error.h"
#include "domain/desired.h"

namespace flock::domain {
namespace {

TEST(Variables, NamesAreWhatAShellTakes) {
  for (const char* good : {"A", "_", "LOG_LEVEL", "a9", "FLOCKS", "_FLOCK_A"})
    EXPECT_EQ(name_fault(good), std::nullopt) << good;
  for (const char* bad : {"", "9A", "A-B", "A B", "A=B", "Ä", "FLOCK_", "FLOCK_TOKEN"})
    EXPECT_NE(name_fault(bad), std::nullopt) << bad;
  EXPECT_EQ(name_fault(std::string(255, 'A')), std::nullopt);
  EXPECT_NE(name_fault(std::string(256, 'A')), std::nullopt);
}

TEST(Variables, ValuesHaveALimitAndNoNul) {
  EXPECT_EQ(value_fault(""), std::nullopt);
  EXPECT_EQ(value_fault("two\nlines = \"x\""), std::nullopt);
  EXPECT_EQ(value_fault(std::string(32 * 1024, 'x')), std::nullopt);
  EXPECT_NE(value_fault(std::string(32 * 1024 + 1, 'x')), std::nullopt);
  EXPECT_NE(value_fault(std::string("a\0b", 3)), std::nullopt);
}

// From the weakest to the strongest; whatever the order they come in, the strongest wins and hides
// the others in order.
TEST(Variables, TheNearestLevelWinsAndOnItTheServicesOwn) {
  const std::vector<Variable> rising = {
      {Level::kOrganization, "", "A", "organization", false},
      {Level::kOrganization, "web", "A", "organization web", false},
      {Level::kFleet, "", "A", "fleet", true},
      {Level::kFleet, "web", "A", "fleet web", false},
      {Level::kDevice, "", "A", "device", false},
      {Level::kDevice, "web", "A", "device web", true},
  };
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (std::size_t count = 0; count <= rising.size(); ++count) {
    std::vector<Variable> some(rising.begin(), rising.begin() + static_cast<std::ptrdiff_t>(count));
    std::shuffle(some.begin(), some.end(), random);
    const auto environment = resolve({{"A", "compose"}}, "web", some);
    ASSERT_EQ(environment.size(), 1u);
    const Effective& a = environment.at("A");
    EXPECT_EQ(a.chosen.value, count == 0 ? "compose" : rising[count - 1].value);
    ASSERT_EQ(a.overridden.size(), count);
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t below = count - i - 1;
      EXPECT_EQ(a.overridden[i].value, below == 0 ? "compose" : rising[below - 1].value);
    }
  }
}

TEST(Variables, OfOneServiceDoNotReachAnother) {
  const std::vector<Variable> all = {{Level::kDevice, "db", "A", "1", false},
                                     {Level::kFleet, "", "B", "2", false}};
  const auto web = resolve({}, "web", all);
  EXPECT_FALSE(web.contains("A"));
  EXPECT_EQ(web.at("B").chosen.level, Level::kFleet);
  EXPECT_EQ(resolve({}, "db", all).size(), 2u);
}

workload::Workload two_services() {
  workload::Workload workload;
  for (const char* name : {"db", "web"}) {
    workload::Service service;
    service.name = name;
    service.repository = "r.example/a";
    service.digests = {{"linux/amd64", "sha256:x"}};
    service.environment = {{"PORT", "80"}};
    workload.services.push_back(service);
  }
  return workload;
}

TEST(Variables, AreInTheDesiredState) {
  const auto desired = make_desired(
      two_services(), "amd64", "",
      {{Level::kFleet, "web", "PORT", "81", false}, {Level::kDevice, "", "KEY", "k", true}});
  EXPECT_EQ(desired.services(0).environment().at("PORT"), "80");
  EXPECT_EQ(desired.services(1).environment().at("PORT"), "81");
  EXPECT_EQ(desired.services(1).environment().at("KEY"), "k");
}

TEST(Variables, ReplaceOnlyEnvironmentsThatDiffer) {
  auto desired = make_desired(two_services(), "amd64", "", {});
  desired.set_version(4);
  const auto before = desired;
  EXPECT_FALSE(replace_environment(desired, two_services(), {}));
  EXPECT_TRUE(replace_environment(desired, two_services(),
                                  {{Level::kDevice, "web", "PORT", "8080", false}}));
  EXPECT_EQ(desired.services(1).environment().at("PORT"), "8080");
  EXPECT_EQ(desired.services(0).SerializeAsString(), before.services(0).SerializeAsString());
  EXPECT_EQ(desired.version(), 4);
  // Taken away again: what the compose file said comes back.
  EXPECT_TRUE(replace_environment(desired, two_services(), {}));
  EXPECT_EQ(desired.SerializeAsString(), before.SerializeAsString());
}

// A message that no broker takes would hold up all others.
TEST(Variables, MustFitIntoOneMessage) {
  std::vector<Variable> many;
  for (int i = 0; i < 20; ++i)
    many.push_back(
        {Level::kFleet, "", "A" + std::to_string(i), std::string(32 * 1024, 'x'), false});
  EXPECT_THROW(make_desired(two_services(), "amd64", "", many), Error);
  auto desired = make_desired(two_services(), "amd64", "", {});
  EXPECT_THROW(replace_environment(desired, two_services(), many), Error);
  many.resize(10);
  EXPECT_NO_THROW(make_desired(two_services(), "amd64", "", many));
}

}  // namespace
}  // namespace flock::domain

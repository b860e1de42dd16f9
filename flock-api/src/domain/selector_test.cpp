// SPDX-License-Identifier: Apache-2.0
#include "domain/selector.h"

#include <gtest/gtest.h>

namespace flock::domain {
namespace {

const FieldTable& fields() {
  static const FieldTable kTable = [] {
    FieldTable table{{"name", FieldType::kText, "d.name"},
                     {"online", FieldType::kBoolean, "d.online"},
                     {"registered_at", FieldType::kTime, "d.registered_at"},
                     {"agent_version", FieldType::kVersion, "d.agent_version"},
                     {"labels", FieldType::kLabels, "d.labels"},
                     {"attributes", FieldType::kAttributes, "d.attributes"}};
    table[1].momentary = true;
    return table;
  }();
  return kTable;
}

Selector of(const std::string& filter) {
  Selector selector;
  selector.filter = parse_filter(filter, fields());
  return selector;
}

TEST(Selector, SaysWhatHoldsAtOneMomentOnly) {
  const auto part = [](const char* filter) { return momentary_part(of(filter).filter, fields()); };
  EXPECT_EQ(part(""), "");
  EXPECT_EQ(part("labels.site = oslo AND agent_version >= 1.2 AND agent_version < 2"), "");
  EXPECT_EQ(part("name:gw OR NOT online = true"), "online");
  EXPECT_EQ(part("labels.a = b AND registered_at > -1d"), "registered_at > -1d");
  EXPECT_EQ(part("registered_at > 2026-11-23T10:00:00Z"), "");
}

TEST(Selector, AKindOfDeviceIsDynamicAndThoseWhoAreThereAreFrozen) {
  Selector fleet;
  fleet.fleet = "f";
  EXPECT_TRUE(fleet.is_whole_fleet());
  EXPECT_EQ(default_membership(fleet, fields()), Membership::kDynamic);
  EXPECT_EQ(default_membership(of("labels.site = oslo"), fields()), Membership::kDynamic);
  EXPECT_EQ(default_membership(of("online = true"), fields()), Membership::kFrozen);
  fleet.devices.emplace();
  EXPECT_FALSE(fleet.is_whole_fleet());
  EXPECT_EQ(default_membership(fleet, fields()), Membership::kFrozen);
  Selector filtered = of("name:gw");
  filtered.fleet = "f";
  EXPECT_FALSE(filtered.is_whole_fleet());
}

TEST(Selector, KnowsTheKeysThatItsFilterNames) {
  const Filter filter =
      of("(labels.site = oslo OR NOT labels.stage:canary) AND labels.site != x AND "
         "attributes.rack >= 12")
          .filter;
  EXPECT_EQ(keys_of(filter, "labels"), (std::vector<std::string>{"site", "stage"}));
  EXPECT_EQ(keys_of(filter, "attributes"), (std::vector<std::string>{"rack"}));
  EXPECT_EQ(suggest_keys({"site", "stage"}, "sites"), "; did you mean site?");
  EXPECT_EQ(suggest_keys({"site", "stage"}, "colour"), "");
  EXPECT_EQ(suggest_keys({}, "site"), "");
}

// Of two deployments `a` (older) and `b`, b asks.
TEST(Selector, AHigherPriorityKeepsItsDevices) {
  const auto ask = [](std::int64_t mine, std::int64_t theirs, OnConflict on_conflict) {
    return contest({mine, "b"}, on_conflict, {theirs, "a"});
  };
  for (const OnConflict any : {OnConflict::kTakeOver, OnConflict::kRefuse, OnConflict::kLeaveOut}) {
    EXPECT_EQ(ask(1, 0, any), Contest::kTaken);
    EXPECT_EQ(ask(0, 1, any), any == OnConflict::kLeaveOut ? Contest::kLeftOut : Contest::kRefused);
  }
  EXPECT_EQ(ask(5, 5, OnConflict::kTakeOver), Contest::kTaken);
  EXPECT_EQ(ask(5, 5, OnConflict::kRefuse), Contest::kRefused);
  EXPECT_EQ(ask(5, 5, OnConflict::kLeaveOut), Contest::kLeftOut);
  // An older one takes nothing back from a newer one.
  EXPECT_EQ(contest({5, "a"}, OnConflict::kTakeOver, {5, "b"}), Contest::kRefused);
}

TEST(Selector, NamesAreReadAsTheyAreWritten) {
  for (const Membership each : {Membership::kDynamic, Membership::kFrozen})
    EXPECT_EQ(membership_named(name_of(each)), each);
  for (const OnConflict each : {OnConflict::kTakeOver, OnConflict::kRefuse, OnConflict::kLeaveOut})
    EXPECT_EQ(on_conflict_named(name_of(each)), each);
  EXPECT_FALSE(membership_named("dynamic") || on_conflict_named(""));
}

}  // namespace
}  // namespace flock::domain

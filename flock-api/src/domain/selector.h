// SPDX-License-Identifier: Apache-2.0
// Who a deployment is for, and whose claim to a device is stronger (docs/rollouts.md, Who).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "domain/filter.h"

namespace flock::domain {

enum class Membership {
  kDynamic,  // devices that come to match later join
  kFrozen,   // whoever matches at the beginning, and nobody else
};
std::string_view name_of(Membership membership);
std::optional<Membership> membership_named(std::string_view name);

// Each part narrows: a device is in when it is in the fleet, on the list and matches the filter.
struct Selector {
  std::optional<std::string> fleet;                 // its id; nothing: every fleet
  std::optional<std::vector<std::string>> devices;  // ids; nothing: no list
  Filter filter;                                    // without parts: every device
  Membership membership = Membership::kDynamic;

  bool is_whole_fleet() const;
};

// What of the filter holds at one moment only, as a caller wrote it ("online", "last_seen > -2h"):
// devices come and go by it all the time, so that nobody can be said to join. "" when nothing does.
std::string momentary_part(const Filter& filter, const FieldTable& fields);
// A list, and a filter of one moment, name those who are there; all else names a kind of device.
Membership default_membership(const Selector& selector, const FieldTable& fields);

// The labels or attributes (`field`) that the filter names, each once, in order.
std::vector<std::string> keys_of(const Filter& filter, std::string_view field);
// Those of `known` that a reader may have meant by `name`, as "; did you mean site?", or "".
std::string suggest_keys(const std::vector<std::string>& known, std::string_view name);

// What a deployment does about devices that another open rollout of the same priority has.
enum class OnConflict { kTakeOver, kRefuse, kLeaveOut };
std::string_view name_of(OnConflict on_conflict);
std::optional<OnConflict> on_conflict_named(std::string_view name);

struct Rank {
  std::int64_t priority = 0;
  std::string deployment;  // its id; that of a later one is greater (UUIDv7)
};
inline constexpr std::int64_t kMostPriority = 1000;

// Two open rollouts want one device: what mine does about those that theirs has.
enum class Contest { kTaken, kLeftOut, kRefused };
Contest contest(const Rank& mine, OnConflict on_conflict, const Rank& theirs);

}  // namespace flock::domain

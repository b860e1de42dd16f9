// SPDX-License-Identifier: Apache-2.0
#include "domain/selector.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"

namespace flock::domain {
namespace {

constexpr std::array<std::pair<Membership, std::string_view>, 2> kMemberships{
    {{Membership::kDynamic, "DYNAMIC"}, {Membership::kFrozen, "FROZEN"}}};
constexpr std::array<std::pair<OnConflict, std::string_view>, 3> kOnConflicts{
    {{OnConflict::kTakeOver, "TAKE_OVER"},
     {OnConflict::kRefuse, "REFUSE"},
     {OnConflict::kLeaveOut, "LEAVE_OUT"}}};

template <typename Table, typename Value>
std::string_view name_in(const Table& table, Value value) {
  for (const auto& [known, name] : table)
    if (known == value) return name;
  return "";
}

void add_keys(const Filter& filter, std::string_view field, std::vector<std::string>& keys) {
  for (const Filter& part : filter.parts) add_keys(part, field, keys);
  if (filter.kind == Filter::Kind::kTerm && filter.term.field == field)
    keys.push_back(filter.term.key);
}

}  // namespace

std::string_view name_of(Membership membership) { return name_in(kMemberships, membership); }

std::optional<Membership> membership_named(std::string_view name) {
  for (const auto& [value, known] : kMemberships)
    if (known == name) return value;
  return std::nullopt;
}

std::string_view name_of(OnConflict on_conflict) { return name_in(kOnConflicts, on_conflict); }

std::optional<OnConflict> on_conflict_named(std::string_view name) {
  for (const auto& [value, known] : kOnConflicts)
    if (known == name) return value;
  return std::nullopt;
}

bool Selector::is_whole_fleet() const {
  return fleet && !devices && filter.kind == Filter::Kind::kAnd && filter.parts.empty();
}

std::string momentary_part(const Filter& filter, const FieldTable& fields) {
  for (const Filter& part : filter.parts)
    if (std::string found = momentary_part(part, fields); !found.empty()) return found;
  if (filter.kind != Filter::Kind::kTerm) return "";
  const Field* field = find_field(fields, filter.term.field);
  FLOCK_ASSERT(field != nullptr);
  if (field->momentary) return field->name;
  return std::holds_alternative<RelativeTime>(filter.term.value) ? to_text(filter) : "";
}

Membership default_membership(const Selector& selector, const FieldTable& fields) {
  return selector.devices || !momentary_part(selector.filter, fields).empty()
             ? Membership::kFrozen
             : Membership::kDynamic;
}

std::vector<std::string> keys_of(const Filter& filter, std::string_view field) {
  std::vector<std::string> keys;
  add_keys(filter, field, keys);
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  return keys;
}

std::string suggest_keys(const std::vector<std::string>& known, std::string_view name) {
  FieldTable table;
  for (const std::string& key : known) table.push_back({key, FieldType::kText, ""});
  const std::string near = suggest_fields(table, name);
  return near.starts_with("; did you mean") ? near : "";
}

Contest contest(const Rank& mine, OnConflict on_conflict, const Rank& theirs) {
  if (theirs.priority < mine.priority) return Contest::kTaken;
  const bool later = mine.deployment > theirs.deployment;
  if (theirs.priority == mine.priority && later && on_conflict == OnConflict::kTakeOver)
    return Contest::kTaken;
  return on_conflict == OnConflict::kLeaveOut ? Contest::kLeftOut : Contest::kRefused;
}

}  // namespace flock::domain

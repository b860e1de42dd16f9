// SPDX-License-Identifier: Apache-2.0
#include "domain/release_diff.h"

#include <algorithm>
#include <boost/json.hpp>
#include <map>
#include <set>

#include "base/json.h"

namespace flock::domain {
namespace {

namespace bj = boost::json;

const bj::value* member(const bj::object& object, std::string_view key) {
  return object.if_contains(key);
}

std::string value_of(const bj::value* value) {
  return value == nullptr || value->is_null() ? "" : bj::serialize(*value);
}

std::set<std::string> keys_of(const bj::object& a, const bj::object& b) {
  std::set<std::string> keys;
  for (const auto& item : a) keys.emplace(item.key());
  for (const auto& item : b) keys.emplace(item.key());
  return keys;
}

bool is_map(std::string_view field) {
  return field == "environment" || field == "labels" || field == "digests";
}

void compare(const bj::object& from, const bj::object& to, const std::string& prefix,
             std::vector<FieldChange>& out) {
  static const bj::object nothing;
  for (const std::string& key : keys_of(from, to)) {
    if (prefix.empty() && (key == "name" || key == "services")) continue;
    const bj::value *before = member(from, key), *after = member(to, key);
    if (prefix.empty() && is_map(key)) {
      compare(before ? before->as_object() : nothing, after ? after->as_object() : nothing,
              key + ".", out);
    } else if (value_of(before) != value_of(after)) {
      out.push_back({prefix + key, value_of(before), value_of(after)});
    }
  }
}

bj::object document_of(const workload::Workload& workload) {
  return json::parse(workload::to_json(workload), {.bytes = 8 << 20}).as_object();
}

std::map<std::string, const bj::object*> services_of(const bj::object& document) {
  std::map<std::string, const bj::object*> out;
  if (const bj::value* services = member(document, "services")) {
    for (const bj::value& service : services->as_array())
      out.emplace(std::string(service.at("name").as_string()), &service.as_object());
  }
  return out;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Takes one number from the front; false when there is none.
bool take_number(std::string_view& text, bool& leading_zero) {
  std::size_t end = 0;
  while (end < text.size() && is_digit(text[end])) ++end;
  leading_zero |= end > 1 && text[0] == '0';
  text.remove_prefix(end);
  return end > 0;
}

bool take_dot(std::string_view& text) {
  if (!text.starts_with('.')) return false;
  text.remove_prefix(1);
  return true;
}

// Identifiers with dots, none of them empty (semver.org, 9 and 10).
bool identifiers_fit(std::string_view text, bool numbers_without_zero) {
  for (;;) {
    const std::string_view one = text.substr(0, text.find('.'));
    const bool plain = std::all_of(one.begin(), one.end(), [](char c) {
      return is_digit(c) || c == '-' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    });
    const bool number = std::all_of(one.begin(), one.end(), is_digit);
    if (one.empty() || !plain) return false;
    if (numbers_without_zero && number && one.size() > 1 && one[0] == '0') return false;
    if (one.size() == text.size()) return true;
    text.remove_prefix(one.size() + 1);
  }
}

}  // namespace

std::string_view to_string(ServiceChange change) noexcept {
  switch (change) {
    case ServiceChange::kAdded:
      return "ADDED";
    case ServiceChange::kRemoved:
      return "REMOVED";
    case ServiceChange::kChanged:
      return "CHANGED";
  }
  return "";
}

ReleaseDiff diff_releases(const workload::Workload& from, const workload::Workload& to) {
  const bj::object before = document_of(from), after = document_of(to);
  const auto old_services = services_of(before), new_services = services_of(after);
  std::set<std::string> names;
  for (const auto& [name, service] : old_services) names.insert(name);
  for (const auto& [name, service] : new_services) names.insert(name);
  ReleaseDiff out;
  for (const std::string& name : names) {
    const auto was = old_services.find(name), is = new_services.find(name);
    ServiceDiff diff{name, ServiceChange::kChanged, {}};
    if (was == old_services.end())
      diff.change = ServiceChange::kAdded;
    else if (is == new_services.end())
      diff.change = ServiceChange::kRemoved;
    else
      compare(*was->second, *is->second, "", diff.fields);
    if (diff.change != ServiceChange::kChanged || !diff.fields.empty())
      out.services.push_back(std::move(diff));
  }
  compare(before, after, "", out.others);
  return out;
}

std::string version_fault(std::string_view version) {
  if (version.starts_with('v')) version.remove_prefix(1);
  bool zero = false;
  if (!take_number(version, zero) || !take_dot(version) || !take_number(version, zero) ||
      !take_dot(version) || !take_number(version, zero))
    return "";  // a name of another kind
  const std::string say = "looks like a semantic version and is none: ";
  if (zero) return say + "its numbers have no leading zeros";
  if (const std::size_t plus = version.find('+'); plus != std::string_view::npos) {
    if (!identifiers_fit(version.substr(plus + 1), false))
      return say + "behind the + stand letters, digits and dashes, with single dots between them";
    version = version.substr(0, plus);
  }
  if (version.empty()) return "";
  if (!version.starts_with('-'))
    return say + "three numbers are followed by -pre-release, +build or nothing";
  if (!identifiers_fit(version.substr(1), true))
    return say + "the pre-release has letters, digits and dashes, with single dots between them";
  return "";
}

}  // namespace flock::domain

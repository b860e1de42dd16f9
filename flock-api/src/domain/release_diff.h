// SPDX-License-Identifier: Apache-2.0
// What differs between two releases, for people to read before they deploy one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "workload/workload.h"

namespace flock::domain {

// Of a map (`environment`, `labels`, `digests`) each key is a field of its own:
// "environment.LOG_LEVEL", "digests.linux/arm64". The values are JSON; "": not there.
struct FieldChange {
  std::string field, from, to;
};
enum class ServiceChange { kAdded, kRemoved, kChanged };
std::string_view to_string(ServiceChange change) noexcept;  // "ADDED", ...
struct ServiceDiff {
  std::string name;
  ServiceChange change = ServiceChange::kChanged;
  std::vector<FieldChange> fields;  // kChanged only
};
struct ReleaseDiff {
  std::vector<ServiceDiff> services;  // by name; what is equal is left out
  std::vector<FieldChange> others;    // volumes and networks of the workload
  bool empty() const noexcept { return services.empty() && others.empty(); }
};
// Compares every field that a workload has, so that none can be forgotten.
ReleaseDiff diff_releases(const workload::Workload& from, const workload::Workload& to);

// A version that looks like one of Semantic Versioning (three numbers with dots in front) must be
// one. What is wrong with it; empty for nothing.
std::string version_fault(std::string_view version);

}  // namespace flock::domain

// SPDX-License-Identifier: Apache-2.0
// Environment variables: which of several with one name a service gets.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace flock::domain {

// Where a value comes from; each level wins over those before it.
enum class Level : std::uint8_t { kRelease, kOrganization, kFleet, kDevice };
std::string_view to_string(Level level) noexcept;  // "release", "organization", ...
std::optional<Level> parse_level(std::string_view text) noexcept;

inline constexpr std::size_t kVariableNameBytes = 255, kVariableValueBytes = 32 * 1024;

struct Variable {
  Level level = Level::kOrganization;
  std::string service;  // "": every service
  std::string name;
  std::string value;  // empty where a secret is only listed
  bool secret = false;
};

// What is wrong with a name or a value, for people; nothing when it is good.
std::optional<std::string> name_fault(std::string_view name);
std::optional<std::string> value_fault(std::string_view value);
std::optional<std::string> service_fault(std::string_view service);

// One variable of one service, and what it hides: the next best first.
struct Effective {
  Variable chosen;
  std::vector<Variable> overridden;
};

// The environment of `service`. A device's value wins over its fleet's, that over the
// organization's, that over the compose file's; on one level a value for the service wins over one
// for all.
std::map<std::string, Effective> resolve(const std::map<std::string, std::string>& compose,
                                         std::string_view service,
                                         const std::vector<Variable>& variables);

}  // namespace flock::domain

// SPDX-License-Identifier: Apache-2.0
#include "domain/variables.h"

#include <algorithm>
#include <array>
#include <utility>

namespace flock::domain {
namespace {

constexpr std::array<std::string_view, 4> kLevels = {"release", "organization", "fleet", "device"};

bool is_name(std::string_view text) {
  const auto letter = [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
  };
  return !text.empty() && letter(text.front()) &&
         std::ranges::all_of(text, [&](char c) { return letter(c) || (c >= '0' && c <= '9'); });
}

std::pair<Level, bool> rank(const Variable& variable) {
  return {variable.level, !variable.service.empty()};
}

}  // namespace

std::string_view to_string(Level level) noexcept {
  return kLevels[static_cast<std::size_t>(level)];
}

std::optional<Level> parse_level(std::string_view text) noexcept {
  for (std::size_t i = 0; i < kLevels.size(); ++i) {
    if (kLevels[i] == text) return static_cast<Level>(i);
  }
  return std::nullopt;
}

std::optional<std::string> name_fault(std::string_view name) {
  if (!is_name(name)) return "must be letters, digits and _, and not begin with a digit";
  if (name.size() > kVariableNameBytes)
    return "must be at most " + std::to_string(kVariableNameBytes) + " characters";
  if (name.starts_with("FLOCK_")) return "names that begin with FLOCK_ are Flock's own";
  return std::nullopt;
}

std::optional<std::string> value_fault(std::string_view value) {
  if (value.size() > kVariableValueBytes)
    return "must be at most " + std::to_string(kVariableValueBytes) + " bytes";
  if (value.find('\0') != std::string_view::npos) return "must not hold a NUL character";
  return std::nullopt;
}

std::optional<std::string> service_fault(std::string_view service) {
  static constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  if (service.empty() || service.size() > 255 ||
      service.find_first_not_of(kAllowed) != std::string_view::npos)
    return "is no name of a service";
  return std::nullopt;
}

std::map<std::string, Effective> resolve(const std::map<std::string, std::string>& compose,
                                         std::string_view service,
                                         const std::vector<Variable>& variables) {
  std::map<std::string, std::vector<Variable>> candidates;
  for (const auto& [name, value] : compose)
    candidates[name].push_back({Level::kRelease, std::string(service), name, value, false});
  for (const Variable& variable : variables) {
    if (variable.service.empty() || variable.service == service)
      candidates[variable.name].push_back(variable);
  }
  std::map<std::string, Effective> out;
  for (auto& [name, list] : candidates) {
    std::ranges::sort(list, [](const Variable& a, const Variable& b) { return rank(a) > rank(b); });
    Effective& effective = out[name];
    effective.chosen = std::move(list.front());
    effective.overridden.assign(std::make_move_iterator(list.begin() + 1),
                                std::make_move_iterator(list.end()));
  }
  return out;
}

}  // namespace flock::domain

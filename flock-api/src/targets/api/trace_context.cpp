// SPDX-License-Identifier: Apache-2.0
#include "targets/api/trace_context.h"

#include <algorithm>
#include <optional>
#include <string_view>

namespace flock::targets::api {
namespace {

bool is_hex(std::string_view text) {
  return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}
// An id: hex digits, not all of them 0.
bool is_id(std::string_view text) {
  return is_hex(text) && text.find_first_not_of('0') != std::string_view::npos;
}

// The only header of its name: which one of two would be right cannot be known.
std::optional<std::string_view> only(const net::Headers& headers, std::string_view name) {
  const auto same = [&](const auto& item) {
    return std::equal(item.first.begin(), item.first.end(), name.begin(), name.end(),
                      [](char a, char b) { return (a | 0x20) == b; });
  };
  const auto& items = headers.items();
  if (std::count_if(items.begin(), items.end(), same) != 1) return std::nullopt;
  return headers.get(name);
}

}  // namespace

// version "-" trace-id "-" parent-id "-" trace-flags, of 2, 32, 16 and 2 digits. A later version
// than 00 may go on behind another dash; there is no version ff (section 3.2).
std::string trace_id(const net::Request& request) {
  constexpr std::size_t kLength = 55;
  const auto given = only(request.headers, "traceparent");
  if (!given || given->size() < kLength) return "";
  const std::string_view version = given->substr(0, 2), trace = given->substr(3, 32),
                         parent = given->substr(36, 16), flags = given->substr(53, 2);
  const bool dashes = (*given)[2] == '-' && (*given)[35] == '-' && (*given)[52] == '-';
  const bool ends = given->size() == kLength || (version != "00" && (*given)[kLength] == '-');
  const bool valid = dashes && ends && is_hex(version) && version != "ff" && is_id(trace) &&
                     is_id(parent) && is_hex(flags);
  return valid ? std::string(trace) : "";
}

}  // namespace flock::targets::api

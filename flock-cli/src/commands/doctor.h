// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace flock::cli {

struct Check {
  std::string name;
  std::string state;  // OK, WARN or FAIL
  std::string detail, advice;
};
// Unix seconds of an HTTP Date header; nothing when it is none.
std::optional<std::int64_t> parse_http_date(const std::string& text);
// More than 30 s apart is a warning: tokens would be refused as expired or not yet valid.
Check check_clock(const std::optional<std::string>& date, std::int64_t now);

}  // namespace flock::cli

// SPDX-License-Identifier: Apache-2.0
// The part of TOML 1.0 that Flock's files use: tables, and strings in them. Anything else is an
// error with its line.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace flock::cli::toml {

struct Entry {
  std::string key, value;
  int line = 0;
};
struct Table {
  std::vector<std::string> path;  // {"contexts", "home"}; empty for what precedes the first header
  std::vector<Entry> entries;
  int line = 0;
};
// The first table is always the one without a header. Throws Error{kInvalidArgument} that names
// `file` and the line.
std::vector<Table> parse(std::string_view text, const std::string& file);
std::string write(const std::vector<Table>& tables);

}  // namespace flock::cli::toml

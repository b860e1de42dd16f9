// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/json/fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace flock::cli {

enum class Format { kTable, kJson, kName };
struct Output {
  Format format = Format::kTable;
  bool headers = true;
  bool color = false;
  bool terminal = false;  // standard output is one: aligned columns, relative times, signs
};

// A column: its head and the path of its value ("release.version"; through a list,
// "platforms.platform", its values with commas); times become "3m ago" on a terminal.
struct Column {
  std::string head, path;
};
// Prints a list answer ({"items"}) or one object: a table on a terminal, tab-separated text when
// piped, JSON as the API gave it, or names alone (`name_path`).
void print(const Output& output, const boost::json::value& answer,
           const std::vector<Column>& columns, std::string_view name_path);
std::string value_at(const boost::json::value& object, std::string_view path);

// What print() writes.
std::string render(const Output& output, const boost::json::value& answer,
                   const std::vector<Column>& columns, std::string_view name_path);
// Foreign text for a line of output: control characters become U+FFFD, so that a name can neither
// steer the terminal nor break a table.
std::string printable(std::string_view text);
// A state in its colour; the text as it is without colours.
std::string painted(const Output& output, std::string_view state, const std::string& text);

// Error: / Why: / Try: / Request: on stderr. Returns the exit code (flock help exit-codes).
int report(const Error& error);

}  // namespace flock::cli

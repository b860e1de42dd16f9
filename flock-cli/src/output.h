// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/json/fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace flock::cli {

enum class Format { kTable, kWide, kJson, kYaml, kCsv, kName };
struct Output {
  Format format = Format::kTable;
  bool headers = true;
  bool color = false;
  bool terminal = false;  // standard output is one: aligned columns, relative times, signs
  std::size_t width = 0;  // of the terminal; longer lines are cut. 0: unknown, nothing is cut
  std::vector<std::string> columns;  // --columns: heads or paths; empty: the command's own
  std::vector<std::string> fields;   // --json=: paths; empty: everything

  // People read it, so notes beside the data are welcome.
  bool is_table() const { return format == Format::kTable || format == Format::kWide; }
};

// A column: its head and the path of its value ("release.version"; through a list,
// "platforms.platform", its values with commas, as those of a list of plain values); times become
// "3m ago" on a terminal.
struct Column {
  std::string head, path;
  bool wide = false;  // in -o wide and -o csv only
};
// Prints a list answer ({"items"}) or one object in the format asked for (`flock help formatting`);
// `name_path` is what -o name prints.
void print(const Output& output, const boost::json::value& answer,
           const std::vector<Column>& columns, std::string_view name_path);
// What print() writes.
std::string render(const Output& output, const boost::json::value& answer,
                   const std::vector<Column>& columns, std::string_view name_path);

std::string value_at(const boost::json::value& object, std::string_view path);
// "3m ago" on a terminal, else the time as it is.
std::string when_text(const Output& output, const std::string& time);
// Foreign text for a line of output: control characters become U+FFFD, so that a name can neither
// steer the terminal nor break a table.
std::string printable(std::string_view text);
// The first `width` code points, the last of them "…" when something is left out.
std::string cut(const std::string& text, std::size_t width);
// JSON without raw control characters: DEL and U+0080 to U+009F are written as escapes.
std::string json_text(const boost::json::value& value);
std::string yaml_text(const boost::json::value& value);
// A state in its colour; the text as it is without colours.
std::string painted(const Output& output, std::string_view state, const std::string& text);

// Error: / Why: / Try: / Docs: / Request: on stderr. Returns the exit code (flock help exit-codes).
int report(const Error& error);

}  // namespace flock::cli

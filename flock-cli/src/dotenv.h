// SPDX-License-Identifier: Apache-2.0
// Files of NAME=value lines, as shells, Docker and others read them.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace flock::cli {

using Assignments = std::vector<std::pair<std::string, std::string>>;  // in the file's order

// One assignment a line, `export` before it or not; `#` begins a comment. 'single quotes' take all
// literally, "double quotes" know \n \r \t \" \\ \$ and may go over lines; without quotes the value
// ends at white space before a `#`. Nothing is substituted. Throws Error{kInvalidArgument} naming
// the line, never the value.
Assignments parse_dotenv(std::string_view text);
// One line, with quotes where it needs them.
std::string dotenv_line(const std::string& name, const std::string& value);

}  // namespace flock::cli

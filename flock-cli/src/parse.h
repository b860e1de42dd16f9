// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "command.h"

namespace flock::cli {

// A command line against the table of commands.
struct Line {
  const Command* command = nullptr;  // null: help, version and the hidden ones
  const Verb* verb = nullptr;
  std::string name;  // the first word
  Arguments arguments;
};
// Throws Error{kInvalidArgument}, with the nearest match, for what the table does not have.
Line parse_line(const std::vector<std::string>& line);
[[noreturn]] void unknown_command(const std::string& name);

// The candidate that `name` was probably meant to be, or "".
std::string nearest(const std::string& name, const std::vector<std::string>& candidates);

}  // namespace flock::cli

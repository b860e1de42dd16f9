// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace flock::cli {

// Everything there is to say about one command; the parser and the help read the same table.
struct CommandHelp {
  std::string name, singular;  // "fleets", "fleet"; no singular: ""
  std::string summary;
  std::vector<std::string> usage;     // without "flock "
  std::vector<std::string> flags;     // the command's own, without dashes
  std::vector<std::string> examples;  // whole lines
};
const std::vector<CommandHelp>& command_helps();
// By name or singular; null when there is none.
const CommandHelp* find_help(const std::string& name);

// `flock help`, `flock help COMMAND`, `flock help exit-codes`.
std::string overview();
std::string help_for(const CommandHelp& command);
std::string exit_codes();

// The candidate that `name` was probably meant to be, or "".
std::string nearest(const std::string& name, const std::vector<std::string>& candidates);

}  // namespace flock::cli

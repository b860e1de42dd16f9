// SPDX-License-Identifier: Apache-2.0
// How a command is described: once, in its own file under commands/. Parser, help, completion and
// `flock help --json` all read this description.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "client.h"
#include "output.h"

namespace flock::cli {

// What a word or a flag's value names; completion asks the API for candidates.
enum class Kind {
  kText,
  kFile,
  kCommand,
  kContext,
  kDevice,
  kFleet,
  kRelease,
  kRollout,
  kKey,
  kToken,
  kMember,
  kOrganization,
  kRole,
  kFormat,
};

struct Flag {
  std::string name;   // without dashes
  std::string value;  // "FLEET"; "" for a switch; "[FIELDS]" when only --name=VALUE gives one
  std::string text;
  char letter = 0;  // -f
  Kind kind = Kind::kText;
  bool is_switch() const { return value.empty(); }
  bool is_optional() const { return value.starts_with('['); }
};

// A command line taken apart: the words after command and verb, and --flags with their values
// ("" for a switch). Of a flag given twice value() is the last.
struct Arguments {
  std::string command;  // "fleets", for hints
  std::vector<std::string> words;
  std::map<std::string, std::vector<std::string>> flags;

  bool has(const std::string& flag) const { return flags.contains(flag); }
  std::string value(const std::string& flag, const std::string& fallback = "") const;
  std::vector<std::string> values(const std::string& flag) const;
  // Throw Error{kInvalidArgument} naming what is missing.
  std::string word(std::size_t index, const std::string& what) const;
  std::string required(const std::string& flag) const;
  std::string usage() const;  // where to read about this command
};

struct Session {
  Client client;
  Output output;
  Arguments arguments;
};

struct Verb {
  std::string name;              // "" when the command has no verbs
  std::string usage;             // what stands behind it: "DEVICE NAME [--yes]"
  std::string summary;           // a few words
  std::vector<Kind> words = {};  // what each word is; more words than these are refused
  std::vector<Flag> flags = {};
  int (*run)(Session&) = nullptr;  // returns the exit code
  bool repeats = false;            // the last word may stand several times
};

struct Command {
  std::string name, singular;  // "fleets", "fleet"; no singular: ""
  std::string summary;
  std::vector<Verb> verbs;            // the first is run by the bare noun
  std::vector<std::string> examples;  // whole lines
  bool needs_verb = false;            // the bare noun is refused
};

// Every command, in the order of `flock help` (commands/table.cpp).
const std::vector<Command>& commands();
// By name or singular; null when there is none.
const Command* find_command(const std::string& name);
// The verb of that name; the first one when `name` is "".
const Verb* find_verb(const Command& command, const std::string& name);
// Flags of every command.
const std::vector<Flag>& global_flags();
const Flag* find_flag(const std::vector<Flag>& flags, const std::string& name);

// Flags that several commands share.
std::vector<Flag> list_flags();       // --limit
std::vector<Flag> selection_flags();  // --fleet, -l, --filter, --all
Flag yes_flag();
std::vector<Flag> operator+(std::vector<Flag> a, const std::vector<Flag>& b);

}  // namespace flock::cli

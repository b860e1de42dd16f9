// SPDX-License-Identifier: Apache-2.0
#include "command.h"

#include <algorithm>

namespace flock::cli {

std::string Arguments::value(const std::string& flag, const std::string& fallback) const {
  const auto found = flags.find(flag);
  return found == flags.end() ? fallback : found->second.back();
}

std::vector<std::string> Arguments::values(const std::string& flag) const {
  const auto found = flags.find(flag);
  return found == flags.end() ? std::vector<std::string>{} : found->second;
}

std::string Arguments::word(std::size_t index, const std::string& what) const {
  if (index < words.size()) return words[index];
  throw Error(Code::kInvalidArgument, "missing: " + what).hint(usage());
}

std::string Arguments::required(const std::string& flag) const {
  if (std::string given = value(flag); !given.empty()) return given;
  throw Error(Code::kInvalidArgument, "missing: --" + flag).hint(usage());
}

std::string Arguments::usage() const {
  return command.empty() ? "flock help" : "flock help " + command;
}

const Command* find_command(const std::string& name) {
  for (const Command& command : commands()) {
    if (!name.empty() && (name == command.name || name == command.singular)) return &command;
  }
  return nullptr;
}

const Verb* find_verb(const Command& command, const std::string& name) {
  if (name.empty()) return &command.verbs.front();
  const auto found = std::find_if(command.verbs.begin(), command.verbs.end(),
                                  [&](const Verb& verb) { return verb.name == name; });
  return found == command.verbs.end() ? nullptr : &*found;
}

const Flag* find_flag(const std::vector<Flag>& flags, const std::string& name) {
  const auto found =
      std::find_if(flags.begin(), flags.end(), [&](const Flag& flag) { return flag.name == name; });
  return found == flags.end() ? nullptr : &*found;
}

const std::vector<Flag>& global_flags() {
  static const std::vector<Flag> flags = {
      {"output", "FORMAT", "table (default), wide, json, yaml, csv or name", 'o', Kind::kFormat},
      {"json", "[FIELDS]", "-o json; --json=name,state prints those fields alone"},
      {"columns", "A,B", "the columns of a table or csv, by head or by path"},
      {"no-headers", "", "tables and csv without their first line"},
      {"server", "URL", "the server to talk to"},
      {"context", "NAME", "the context to use; see flock help contexts", 0, Kind::kContext},
      {"org", "ORG", "the organization to work in: its slug or id", 0, Kind::kOrganization},
      {"color", "WHEN", "auto (default), always or never"},
      {"no-input", "", "fail instead of asking"},
      {"debug", "", "print every request on standard error, without secrets"},
      {"help", "", "this text", 'h'},
  };
  return flags;
}

std::vector<Flag> list_flags() {
  return {{"limit", "N", "stop after N items; default 1000, 0 takes all"}};
}

std::vector<Flag> selection_flags() {
  return {{"fleet", "FLEET", "devices of this fleet: its slug or id", 0, Kind::kFleet},
          {"selector", "LABELS", "devices with these labels: site=oslo,stage!=test", 'l'},
          {"filter", "EXPR", "devices that match: labels.site = \"oslo\" AND state = \"ONLINE\""},
          {"all", "", "every device of the organization"}};
}

Flag yes_flag() { return {"yes", "", "do not ask"}; }

std::vector<Flag> operator+(std::vector<Flag> a, const std::vector<Flag>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace flock::cli

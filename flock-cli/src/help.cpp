// SPDX-License-Identifier: Apache-2.0
#include "help.h"

#include <boost/json.hpp>

namespace flock::cli {
namespace {

namespace bj = boost::json;

std::string padded(std::string text, std::size_t width) {
  text.append(text.size() < width ? width - text.size() : 1, ' ');
  return text;
}

std::string flag_line(const Flag& flag) {
  const std::string letter = flag.letter ? std::string("-") + flag.letter + ", " : "    ";
  const std::string value = flag.is_switch()     ? ""
                            : flag.is_optional() ? "[=" + flag.value.substr(1)
                                                 : " " + flag.value;
  return "  " + padded(letter + "--" + flag.name + value, 31) + flag.text + "\n";
}

std::string everywhere() {
  std::string out = "Everywhere:\n";
  for (const Flag& flag : global_flags()) out += flag_line(flag);
  return out;
}

std::string usage_of(const Command& command, const Verb& verb) {
  std::string out = "flock " + command.name;
  if (!verb.name.empty())
    out += &verb == &command.verbs.front() && !command.needs_verb ? " [" + verb.name + "]"
                                                                  : " " + verb.name;
  return verb.usage.empty() ? out : out + " " + verb.usage;
}

bj::array flags_json(const std::vector<Flag>& flags) {
  bj::array out;
  for (const Flag& flag : flags) {
    bj::object item{{"name", flag.name}, {"value", flag.value}, {"summary", flag.text}};
    if (flag.letter) item["letter"] = std::string(1, flag.letter);
    out.push_back(std::move(item));
  }
  return out;
}

constexpr const char* kExitCodes = R"(  0  done
  1  failed
  2  wrong usage
  3  not found
  4  not signed in or not allowed
  5  conflict or precondition
  6  server unreachable
  7  waited too long
  8  still running (flock rollouts status)
  9  the rollout failed
130  interrupted
)";

constexpr const char* kEnvironment =
    R"(A value comes from the first of: flag, environment, flock.toml in this folder or one above it,
the context, the default. `flock config explain` shows which one it was.

  FLOCK_SERVER       the server's URL
  FLOCK_TOKEN        an API key or access token; wins over what `flock login` stored
  FLOCK_ORG          the organization: its slug or id
  FLOCK_FLEET        the fleet where --fleet is not given
  FLOCK_CONTEXT      the context to use
  FLOCK_CA_FILE      PEM file with the server's own CA
  FLOCK_SETUP_KEY    the one-time key for `flock setup`
  FLOCK_CONFIG_HOME  the folder of config.toml and credentials.json;
                     default: $XDG_CONFIG_HOME/flock, then ~/.config/flock
  XDG_CACHE_HOME     names for completion are kept under it for half a minute
  FLOCK_COLOR        auto, always or never; also NO_COLOR and CLICOLOR_FORCE
  GITHUB_ACTIONS     true: errors are printed as an annotation too

flock.toml may name context, organization and fleet. It cannot name a server: a project that was
fetched from elsewhere must not choose where a token is sent.
)";

constexpr const char* kFormatting =
    R"(  -o table  aligned, with relative times and signs on a terminal; tab-separated, uncut and without
            colours into a pipe
  -o wide   a table with every column, uncut
  -o json   the API's answer; --json=name,fleet.slug keeps those fields of every item
  -o yaml   the same as YAML
  -o csv    every column, RFC 4180; a cell that a spreadsheet would take for a formula gets a '
  -o name   one name a line, for scripts: flock devices -o name | xargs -n1 flock devices show

  --columns name,state,labels.site   these columns, by their head or by their path in the JSON
  --no-headers                       without the first line
  --limit N                          lists stop after 1000 items and say so; 0 takes all

States have a sign as well as a colour: ● good  ✗ bad  … under way  ○ quiet
Data goes to standard output, everything else to standard error.
)";

}  // namespace

std::string overview() {
  std::string out = "flock: deploy, update and watch fleets of Linux devices\n\n";
  for (const Command& command : commands())
    out += "  " + padded("flock " + command.name, 18) + command.summary + "\n";
  out += "  " + padded("flock version", 18) + "print the version\n";
  out += "  " + padded("flock help", 18) +
         "help for a COMMAND, or exit-codes, environment, formatting\n\n";
  return out + everywhere();
}

std::string help_for(const Command& command) {
  std::string out = "flock " + command.name + ": " + command.summary + "\n\n";
  std::vector<Flag> flags;
  for (const Verb& verb : command.verbs) {
    out += "  " + usage_of(command, verb) + "\n";
    if (!verb.summary.empty()) out += "      " + verb.summary + "\n";
    for (const Flag& flag : verb.flags) {
      if (find_flag(flags, flag.name) == nullptr) flags.push_back(flag);
    }
  }
  if (!flags.empty()) out += "\n";
  for (const Flag& flag : flags) out += flag_line(flag);
  out += "\nExamples:\n";
  for (const std::string& line : command.examples) out += "  " + line + "\n";
  return out + "\n" + everywhere();
}

bj::value command_tree() {
  bj::array list;
  for (const Command& command : commands()) {
    bj::array verbs;
    for (const Verb& verb : command.verbs)
      verbs.push_back(bj::object{{"name", verb.name},
                                 {"usage", usage_of(command, verb)},
                                 {"summary", verb.summary},
                                 {"flags", flags_json(verb.flags)}});
    bj::array examples;
    for (const std::string& line : command.examples) examples.emplace_back(line);
    list.push_back(bj::object{{"name", command.name},
                              {"singular", command.singular},
                              {"summary", command.summary},
                              {"verbs", std::move(verbs)},
                              {"examples", std::move(examples)}});
  }
  return bj::object{
      {"version", kVersion}, {"flags", flags_json(global_flags())}, {"commands", std::move(list)}};
}

const char* help_topic(const std::string& name) {
  if (name == "exit-codes") return kExitCodes;
  if (name == "environment") return kEnvironment;
  if (name == "formatting") return kFormatting;
  return nullptr;
}

}  // namespace flock::cli

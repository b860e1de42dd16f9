// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "commands/commands.h"
#include "help.h"

namespace flock::cli {
namespace {

struct Command {
  const char* name;
  int (*run)(Session&);
};
constexpr Command kCommands[] = {
    {"setup", run_setup},       {"login", run_login},       {"whoami", run_whoami},
    {"auth", run_auth},         {"fleets", run_fleets},     {"keys", run_keys},
    {"devices", run_devices},   {"releases", run_releases}, {"deploy", run_deploy},
    {"rollouts", run_rollouts}, {"audit", run_audit},       {"api", run_api}};

// Flags that stand alone; every other one takes a value.
constexpr const char* kSwitches[] = {"with-token", "no-wait",  "no-headers", "include", "help",
                                     "yes",        "no-input", "debug",      "json"};
constexpr const char* kValues[] = {
    "server", "setup-key-file", "organization", "fleet",   "name", "max-uses",        "expires-in",
    "file",   "version",        "note",         "release", "soak", "failure-timeout", "method",
    "data",   "output",         "color",        "from",    "to",   "actor",           "action",
    "format"};
// Flags of every command; the others stand in the command's help.
constexpr const char* kEverywhere[] = {"output",   "no-headers", "server", "color",
                                       "no-input", "debug",      "json",   "help"};
constexpr std::pair<const char*, const char*> kShort[] = {{"-o", "output"},  {"-f", "file"},
                                                          {"-X", "method"},  {"-d", "data"},
                                                          {"-i", "include"}, {"-h", "help"}};

template <class List>
bool contains(const List& list, const std::string& wanted) {
  return std::any_of(std::begin(list), std::end(list),
                     [&](const char* item) { return wanted == item; });
}

Arguments parse(const std::vector<std::string>& line) {
  Arguments out;
  for (std::size_t i = 0; i < line.size(); ++i) {
    std::string name = line[i];
    if (name == "-" || !name.starts_with('-')) {
      out.words.push_back(name);
      continue;
    }
    std::string value;
    bool has_value = false;
    if (const std::size_t equals = name.find('=');
        equals != std::string::npos && name.starts_with("--")) {
      value = name.substr(equals + 1);
      name = name.substr(0, equals);
      has_value = true;
    }
    for (const auto& [letter, full] : kShort) {
      if (name == letter) name = std::string("--") + full;
    }
    const std::string flag = name.starts_with("--") ? name.substr(2) : name;
    if (!contains(kSwitches, flag)) {
      if (!contains(kValues, flag))
        throw Error(Code::kInvalidArgument, "unknown flag " + line[i].substr(0, line[i].find('=')))
            .hint(out.words.empty() || find_help(out.words[0]) == nullptr
                      ? "flock help"
                      : "flock help " + out.words[0]);
      if (!has_value && i + 1 == line.size())
        throw Error(Code::kInvalidArgument, line[i] + " needs a value").hint("flock help");
      if (!has_value) value = line[++i];
    } else if (has_value) {
      throw Error(Code::kInvalidArgument, "--" + flag + " takes no value");
    }
    out.flags[flag] = value;
  }
  return out;
}

Format parse_format(const std::string& text) {
  if (text == "table") return Format::kTable;
  if (text == "json") return Format::kJson;
  if (text == "name") return Format::kName;
  throw Error(Code::kInvalidArgument, "unknown output format " + text)
      .hint("-o table, -o json or -o name");
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool parse_color(const std::string& when, bool terminal) {
  if (when == "always") return true;
  if (when == "never") return false;
  if (when != "auto")
    throw Error(Code::kInvalidArgument, "unknown colour mode " + when)
        .hint("--color auto, always or never");
  if (!environment("NO_COLOR").empty()) return false;  // no-color.org
  if (const std::string force = environment("CLICOLOR_FORCE"); !force.empty() && force != "0")
    return true;
  return terminal && environment("TERM") != "dumb";
}

[[noreturn]] void unknown_command(const std::string& name) {
  std::vector<std::string> names{"help", "version"};
  for (const Command& command : kCommands) names.emplace_back(command.name);
  const std::string meant = nearest(name, names);
  throw Error(Code::kInvalidArgument, "there is no command `" + name + "`")
      .hint(meant.empty() ? "flock help" : "flock " + meant);
}

// A flag that another command takes is a mistake here, not something to pass over.
void check_flags(const CommandHelp& command, const Arguments& arguments) {
  for (const auto& [flag, value] : arguments.flags) {
    const bool known =
        contains(kEverywhere, flag) ||
        std::find(command.flags.begin(), command.flags.end(), flag) != command.flags.end();
    if (known) continue;
    const std::string meant = nearest(flag, command.flags);
    throw Error(Code::kInvalidArgument, "`flock " + command.name + "` has no --" + flag)
        .hint(meant.empty() ? "flock help " + command.name
                            : "flock " + command.name + " --" + meant);
  }
}

int print_help(const std::vector<std::string>& words) {
  const std::string topic = words.empty()        ? ""
                            : words[0] != "help" ? words[0]
                            : words.size() > 1   ? words[1]
                                                 : "";
  const CommandHelp* command = find_help(topic);
  if (topic == "exit-codes")
    std::fputs(exit_codes().c_str(), stdout);
  else if (command != nullptr)
    std::fputs(help_for(*command).c_str(), stdout);
  else if (topic.empty())
    std::fputs(overview().c_str(), stdout);
  else
    unknown_command(topic);
  return 0;
}

int dispatch(const std::vector<std::string>& line) {
  if (line == std::vector<std::string>{"--version"} ||
      line == std::vector<std::string>{"version"}) {
    std::puts("flock 0.1.0");
    return 0;
  }
  Arguments arguments = parse(line);
  const std::string name = arguments.words.empty() ? "help" : arguments.words[0];
  if (name == "help" || arguments.has("help")) return print_help(arguments.words);
  const CommandHelp* help = find_help(name);
  if (help == nullptr) unknown_command(name);
  check_flags(*help, arguments);
  Output output;
  output.terminal = ::isatty(STDOUT_FILENO) != 0;
  output.format = parse_format(arguments.value("output", arguments.has("json") ? "json" : "table"));
  output.headers = !arguments.has("no-headers");
  const std::string when = environment("FLOCK_COLOR");
  output.color =
      parse_color(arguments.value("color", when.empty() ? "auto" : when), output.terminal);
  Settings settings = load_settings(arguments.value("server"));
  settings.debug = arguments.has("debug");
  Session session{Client(std::move(settings)), output, std::move(arguments)};
  for (const Command& command : kCommands) {
    if (help->name == command.name) return command.run(session);
  }
  unknown_command(name);
}

}  // namespace

int run(const std::vector<std::string>& arguments) {
  try {
    return dispatch(arguments);
  } catch (const Error& error) {
    return report(error);
  } catch (const std::exception& error) {
    return report(Error(Code::kInternal, error.what()));
  }
}

}  // namespace flock::cli

// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include <algorithm>
#include <cstdio>

#include "commands/commands.h"

namespace flock::cli {
namespace {

constexpr const char* kHelp =
    R"(flock: deploy, update and watch fleets of Linux devices

  flock setup --server URL --setup-key-file FILE [--organization NAME]
  flock login --server URL --with-token          the token comes from standard input
  flock whoami
  flock fleets    [ls|show FLEET|create NAME|rm FLEET]
  flock keys      [ls|create --fleet FLEET [--name N] [--max-uses N] [--expires-in 24h]|revoke ID]
  flock devices   [ls [--fleet FLEET]|show DEVICE|rename DEVICE NAME|revoke DEVICE|rm DEVICE]
  flock releases  [ls|show VERSION|create -f compose.yaml [--version V] [--note TEXT]]
  flock deploy FLEET (--release VERSION | -f compose.yaml) [--soak 5s] [--no-wait]
  flock rollouts  [ls|show ID|watch ID]
  flock api PATH [-X METHOD] [-d JSON|@FILE|-] [-i]
  flock auth token | flock version | flock help [exit-codes]

Everywhere: -o table|json|name, --no-headers, --server URL, --color never|auto|always
)";
constexpr const char* kExitCodes =
    R"( 0  done                      5  conflict or precondition
 1  failed                    6  server unreachable
 2  wrong usage               7  waited too long
 3  not found                 9  the rollout failed
 4  not signed in or not allowed
)";

struct Command {
  const char* name;
  const char* singular;
  int (*run)(Session&);
};
constexpr Command kCommands[] = {{"setup", "", run_setup},
                                 {"login", "", run_login},
                                 {"whoami", "", run_whoami},
                                 {"auth", "", run_auth},
                                 {"fleets", "fleet", run_fleets},
                                 {"keys", "key", run_keys},
                                 {"devices", "device", run_devices},
                                 {"releases", "release", run_releases},
                                 {"deploy", "", run_deploy},
                                 {"rollouts", "rollout", run_rollouts},
                                 {"api", "", run_api}};

// Flags that stand alone; every other one takes a value.
constexpr const char* kSwitches[] = {"with-token", "no-wait", "no-headers", "include", "help"};
constexpr const char* kValues[] = {
    "server",          "setup-key-file", "organization", "fleet",  "name",    "max-uses",
    "expires-in",      "file",           "version",      "note",   "release", "soak",
    "failure-timeout", "method",         "data",         "output", "color"};
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
        throw Error(Code::kInvalidArgument, "unknown flag " + line[i]).hint("flock help");
      if (!has_value && i + 1 == line.size())
        throw Error(Code::kInvalidArgument, line[i] + " needs a value").hint("flock help");
      if (!has_value) value = line[++i];
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

std::size_t distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row[b.size()];
}

[[noreturn]] void unknown_command(const std::string& name) {
  std::string hint = "flock help";
  std::size_t best = 3;
  for (const Command& command : kCommands) {
    if (const std::size_t d = distance(name, command.name); d < best) {
      best = d;
      hint = std::string("flock ") + command.name;
    }
  }
  throw Error(Code::kInvalidArgument, "there is no command `" + name + "`").hint(hint);
}

int dispatch(const std::vector<std::string>& line) {
  Arguments arguments = parse(line);
  const std::string name = arguments.words.empty() ? "help" : arguments.words[0];
  if (name == "version") {
    std::puts("flock 0.1.0");
    return 0;
  }
  if (name == "help" || arguments.has("help")) {
    std::fputs(
        arguments.words.size() > 1 && arguments.words[1] == "exit-codes" ? kExitCodes : kHelp,
        stdout);
    return 0;
  }
  for (const Command& command : kCommands) {
    if (name != command.name && name != command.singular) continue;
    Output output;
    output.format = parse_format(arguments.value("output", "table"));
    output.headers = !arguments.has("no-headers");
    Session session{Client(load_settings(arguments.value("server"))), output, std::move(arguments)};
    return command.run(session);
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

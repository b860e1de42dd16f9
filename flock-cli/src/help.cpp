// SPDX-License-Identifier: Apache-2.0
#include "help.h"

#include <algorithm>
#include <array>

namespace flock::cli {
namespace {

// What each flag means; a switch has no value.
struct FlagHelp {
  const char* name;
  const char* value;
  const char* text;
};
constexpr std::array kFlags = {
    FlagHelp{"setup-key-file", "FILE", "the key flock-api printed at its first start; - reads it"},
    FlagHelp{"organization", "NAME", "how the organization is called"},
    FlagHelp{"with-token", "", "read the token from standard input"},
    FlagHelp{"fleet", "FLEET", "a fleet's slug or id"},
    FlagHelp{"name", "NAME", "a name for people"},
    FlagHelp{"max-uses", "N", "how many devices may register with it"},
    FlagHelp{"expires-in", "DURATION", "such as 24h; default: never"},
    FlagHelp{"file", "FILE", "-f: a compose file; - reads standard input"},
    FlagHelp{"version", "VERSION", "the release's version; default: the next number"},
    FlagHelp{"note", "TEXT", "what is new, for people"},
    FlagHelp{"release", "VERSION", "a release that exists"},
    FlagHelp{"soak", "DURATION", "how long a device must stay healthy to count"},
    FlagHelp{"failure-timeout", "DURATION", "when an unsettled device counts as failed"},
    FlagHelp{"no-wait", "", "return at once instead of watching"},
    FlagHelp{"yes", "", "do not ask"},
    FlagHelp{"method", "METHOD", "-X: default GET, with data POST"},
    FlagHelp{"data", "JSON", "-d: the body; @FILE reads a file, - standard input"},
    FlagHelp{"include", "", "-i: print status and headers too"},
    FlagHelp{"from", "TIME", "not before, such as 2026-11-24T00:00:00Z"},
    FlagHelp{"to", "TIME", "before"},
    FlagHelp{"actor", "ID", "who did it"},
    FlagHelp{"action", "NAME", "what was done, such as createFleet"},
    FlagHelp{"format", "FORMAT", "jsonl (default, can be verified) or csv"},
};

constexpr const char* kEverywhere =
    R"(Everywhere:
  -o, --output FORMAT      table (default), json as the API gave it, name; --json is -o json
      --no-headers         tables without their first line
      --server URL         default: FLOCK_SERVER, then what `flock login` stored
      --color WHEN         auto (default), always, never; also FLOCK_COLOR and NO_COLOR
      --no-input           fail instead of asking
      --debug              print every request on standard error, without secrets
  -h, --help               this text
)";

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

std::string padded(std::string text, std::size_t width) {
  text.append(text.size() < width ? width - text.size() : 1, ' ');
  return text;
}

}  // namespace

const std::vector<CommandHelp>& command_helps() {
  static const std::vector<CommandHelp> table = {
      {"setup",
       "",
       "make the first organization with the server's one-time setup key",
       {"setup --server URL --setup-key-file FILE [--organization NAME]"},
       {"setup-key-file", "organization"},
       {"flock setup --server https://flock.example --setup-key-file setup-key"}},
      {"login",
       "",
       "sign in to a server",
       {"login --server URL --with-token"},
       {"with-token"},
       {"flock login --server https://flock.example --with-token <token-file"}},
      {"whoami", "", "show who is signed in", {"whoami"}, {}, {"flock whoami -o json"}},
      {"auth",
       "",
       "print the token in use",
       {"auth token"},
       {},
       {"docker login registry.example -u flock --password \"$(flock auth token)\""}},
      {"fleets",
       "fleet",
       "devices that get the same releases",
       {"fleets [ls]", "fleets show FLEET", "fleets create NAME", "fleets rm FLEET [--yes]"},
       {"yes"},
       {"flock fleets create \"Oslo gateways\"", "flock fleets show oslo-gateways"}},
      {"keys",
       "key",
       "provisioning keys: what a new device registers with",
       {"keys [ls]", "keys create --fleet FLEET [--name NAME] [--max-uses N] [--expires-in 24h]",
        "keys revoke ID [--yes]"},
       {"fleet", "name", "max-uses", "expires-in", "yes"},
       {"flock keys create --fleet demo --max-uses 10 --expires-in 24h"}},
      {"devices",
       "device",
       "what is registered, what it runs and should run",
       {"devices [ls] [--fleet FLEET]", "devices show DEVICE", "devices rename DEVICE NAME",
        "devices revoke DEVICE [--yes]", "devices rm DEVICE [--yes]"},
       {"fleet", "yes"},
       {"flock devices --fleet demo", "flock devices show gw-1",
        "flock devices -o json | jq -r '.items[] | select(.state == \"OFFLINE\") | .name'"}},
      {"releases",
       "release",
       "compose files locked to digests; never changed",
       {"releases [ls]", "releases show VERSION",
        "releases create -f FILE [--version VERSION] [--note TEXT]"},
       {"file", "version", "note"},
       {"flock releases create -f compose.yaml --note \"new camera driver\""}},
      {"deploy",
       "",
       "roll a release out to a fleet and watch it",
       {"deploy FLEET (--release VERSION | -f FILE) [--soak 5s] [--failure-timeout 10m] "
        "[--no-wait]"},
       {"release", "file", "version", "note", "soak", "failure-timeout", "no-wait"},
       {"flock deploy demo --release 12", "flock deploy demo -f compose.yaml --soak 30s"}},
      {"rollouts",
       "rollout",
       "deployments under way and past",
       {"rollouts [ls]", "rollouts show ID", "rollouts watch ID"},
       {},
       {"flock rollouts watch \"$(flock rollouts -o name | head -1)\""}},
      {"audit",
       "",
       "who did what, and the proof that nothing is missing",
       {"audit [ls] [--from TIME] [--to TIME] [--actor ID] [--action NAME]",
        "audit export [--from TIME] [--to TIME] [--format jsonl|csv]", "audit verify FILE|-"},
       {"from", "to", "actor", "action", "format"},
       {"flock audit export --from 2026-11-01T00:00:00Z >audit.jsonl",
        "flock audit verify audit.jsonl"}},
      {"api",
       "",
       "call the REST API as it is",
       {"api PATH [-X METHOD] [-d JSON|@FILE|-] [-i]"},
       {"method", "data", "include"},
       {"flock api /v1/fleets", "flock api /v1/fleets -d '{\"name\":\"Oslo\"}'"}},
  };
  return table;
}

const CommandHelp* find_help(const std::string& name) {
  for (const CommandHelp& command : command_helps()) {
    if (name == command.name || (!name.empty() && name == command.singular)) return &command;
  }
  return nullptr;
}

std::string overview() {
  std::string out = "flock: deploy, update and watch fleets of Linux devices\n\n";
  for (const CommandHelp& command : command_helps())
    out += "  " + padded("flock " + command.name, 16) + command.summary + "\n";
  out += "  " + padded("flock version", 16) + "print the version\n";
  out += "  " + padded("flock help", 16) + "help for a COMMAND, or exit-codes\n\n";
  return out + kEverywhere;
}

std::string help_for(const CommandHelp& command) {
  std::string out = "flock " + command.name + ": " + command.summary + "\n\n";
  for (const std::string& line : command.usage) out += "  flock " + line + "\n";
  if (!command.flags.empty()) out += "\n";
  for (const std::string& flag : command.flags) {
    for (const FlagHelp& help : kFlags) {
      if (flag == help.name)
        out +=
            padded("      --" + flag + (help.value[0] ? std::string(" ") + help.value : ""), 33) +
            help.text + "\n";
    }
  }
  out += "\nExamples:\n";
  for (const std::string& line : command.examples) out += "  " + line + "\n";
  return out + "\n" + kEverywhere;
}

std::string exit_codes() {
  return R"(  0  done
  1  failed
  2  wrong usage
  3  not found
  4  not signed in or not allowed
  5  conflict or precondition
  6  server unreachable
  7  waited too long
  9  the rollout failed
130  interrupted
)";
}

std::string nearest(const std::string& name, const std::vector<std::string>& candidates) {
  std::string found;
  std::size_t best = std::min<std::size_t>(3, name.size());
  for (const std::string& candidate : candidates) {
    if (const std::size_t d = distance(name, candidate); d < best) {
      best = d;
      found = candidate;
    }
  }
  return found;
}

}  // namespace flock::cli

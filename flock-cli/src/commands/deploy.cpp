// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "async/loop.h"
#include "base/bytes.h"
#include "base/json.h"
#include "commands/deployment_plan.h"
#include "commands/releases.h"
#include "input.h"
#include "selection.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

Error bad_flag(const std::string& flag, const std::string& value, const std::string& wanted) {
  return Error(Code::kInvalidArgument, "--" + flag + " " + value + ": " + wanted)
      .hint("flock help deploy");
}

// "5%" or "0.05".
double share(std::string text, const std::string& flag) {
  const bool percent = text.ends_with('%');
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  const bool whole = end != text.c_str() && (percent ? std::string(end) == "%" : *end == 0);
  const double value = percent ? number / 100 : number;
  if (!whole || !(value >= 0 && value <= 1)) throw bad_flag(flag, text, "say it as 5% or 0.05");
  return value;
}

// "1,5%,25%": numbers of devices, or shares of them.
bj::array stages_of(const Arguments& arguments) {
  bj::array out;
  const std::string text = arguments.value("stages");
  for (const std::string& item : split(text)) {
    bj::object stage;
    if (item.ends_with('%')) {
      stage["percent"] = share(item, "stages") * 100;
    } else if (item.size() < 9 && item.find_first_not_of("0123456789") == std::string::npos) {
      stage["count"] = std::stoll(item);
    } else {
      throw bad_flag("stages", text, "say them as 1,5%,25%: devices, or shares of them");
    }
    if (arguments.has("stage-soak")) stage["soak"] = arguments.value("stage-soak");
    out.push_back(std::move(stage));
  }
  return out;
}

// "p95(load_1m)" or "max(web/memory_bytes)".
void read_metric(const std::string& text, bj::object& gate) {
  const std::size_t open = text.find('('), slash = text.find('/');
  gate["kind"] = "metric";
  gate["aggregate"] = text.substr(0, open);
  std::string metric = text.substr(open + 1, text.size() - open - 2);
  if (slash != std::string::npos) {
    gate["service"] = text.substr(open + 1, slash - open - 1);
    metric = text.substr(slash + 1, text.size() - slash - 2);
  }
  gate["metric"] = metric;
}

double plain_number(const std::string& text, const std::string& rule) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || *end != 0) throw bad_flag("gate", rule, "ends with a number");
  return value;
}

// "confirmed>=95%", "failed<=0.1", "p95(load_1m)<=4", "comparison"; with "@20" it is measured on at
// least 20 devices.
bj::object gate_of(const std::string& rule) {
  const std::size_t at = rule.find('@');
  const std::string text = rule.substr(0, at);
  bj::object gate;
  if (text == "comparison") {
    gate["kind"] = text;
  } else {
    const std::size_t sign = text.find_first_of("<>");
    if (sign == std::string::npos || text.substr(sign + 1, 1) != "=")
      throw bad_flag("gate", rule, "say it as confirmed>=95%, failed<=10%@20 or p95(load_1m)<=4");
    const std::string what = text.substr(0, sign), limit = text.substr(sign + 2);
    const bool is_metric = what.find('(') != std::string::npos && what.ends_with(')');
    if (is_metric)
      read_metric(what, gate);
    else
      gate["signal"] = what;
    gate[text[sign] == '>' ? "at_least" : "at_most"] =
        is_metric ? plain_number(limit, rule) : share(limit, "gate");
  }
  if (at != std::string::npos) gate["sample"] = number("gate", rule.substr(at + 1), 1);
  return gate;
}

// "MON,FRI 22:00-04:00 Europe/Oslo": days and time zone may be left out.
bj::object window_of(const std::string& text) {
  bj::object window;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (const std::size_t dash = word.find('-'); word.find(':') < dash) {
      window["from"] = word.substr(0, dash);
      window["to"] = dash == std::string::npos ? "" : word.substr(dash + 1);
    } else if (window.contains("from")) {
      window["time_zone"] = word;
    } else {
      bj::array days;
      for (const std::string& day : split(word)) days.emplace_back(day);
      window["days"] = std::move(days);
    }
  }
  if (!window.contains("from"))
    throw bad_flag("window", text,
                   "say it as \"22:00-04:00\" or \"SAT,SUN 22:00-04:00 Europe/Oslo\"");
  return window;
}

// "site=1"
bj::object down_limit_of(const std::string& text) {
  const std::size_t equals = text.rfind('=');
  if (equals == std::string::npos || equals == 0)
    throw bad_flag("max-down-per", text, "say a label and how many: site=1");
  return {{"label", text.substr(0, equals)},
          {"count", number("max-down-per", text.substr(equals + 1), 1)}};
}

// Gates as the API takes them: one, or a list. Secrets stand there and in no argument.
void read_gates(const std::string& path, bj::array& gates) {
  const bj::value given = json::parse(read_input(path));
  if (given.is_array()) {
    for (const bj::value& gate : given.as_array()) gates.push_back(gate);
  } else {
    gates.push_back(given);
  }
}

bj::object strategy(const Arguments& arguments) {
  bj::object out;
  const bool staged = arguments.has("stages");
  out["kind"] = arguments.has("by-hand")  ? "manual"
                : staged                  ? "progressive"
                : arguments.has("canary") ? "canary"
                                          : "immediate";
  if (arguments.has("by-hand") && !staged)
    throw Error(Code::kInvalidArgument, "--by-hand needs --stages").hint("flock help deploy");
  if (arguments.has("canary") && staged)
    throw Error(Code::kInvalidArgument, "--canary and --stages exclude each other")
        .hint("flock help deploy");
  if (staged) out["stages"] = stages_of(arguments);
  bj::array gates;
  for (const std::string& gate : arguments.values("gate")) gates.push_back(gate_of(gate));
  if (arguments.has("gates")) read_gates(arguments.value("gates"), gates);
  if (!gates.empty()) out["gates"] = std::move(gates);
  bj::array windows;
  for (const std::string& window : arguments.values("window")) windows.push_back(window_of(window));
  if (!windows.empty()) out["windows"] = std::move(windows);
  if (arguments.has("retries")) out["retries"] = number("retries", arguments.value("retries"), 0);
  for (const auto& [flag, key] :
       {std::pair{"max-updating", "max_updating"}, std::pair{"max-per-minute", "max_per_minute"}})
    if (arguments.has(flag)) out[key] = number(flag, arguments.value(flag), 1);
  if (arguments.has("max-down-per"))
    out["max_down_per"] = down_limit_of(arguments.value("max-down-per"));
  if (arguments.has("on-failure")) {
    std::string policy = arguments.value("on-failure");
    if (policy != "stop" && policy != "pause" && policy != "rollback")
      throw bad_flag("on-failure", policy, "is none of stop, pause, rollback");
    out["on_failure"] = policy == "stop" ? "STOP" : policy == "pause" ? "PAUSE" : "ROLL_BACK";
  }
  for (const auto& [flag, key] :
       {std::pair{"offline-patience", "offline_patience"}, std::pair{"start-at", "start_at"},
        std::pair{"retry-after", "retry_after"}})
    if (arguments.has(flag)) out[key] = arguments.value(flag);
  if (arguments.has("spread-over")) out["spread_over"] = arguments.value("spread-over");
  if (arguments.has("approval")) out["approval"] = true;
  return out;
}

// Empty without --host-command and --host-file.
bj::object host_command(const Arguments& arguments) {
  bj::object out;
  const bool script = arguments.has("host-file");
  if (script && arguments.has("host-command"))
    throw Error(Code::kInvalidArgument, "--host-command and --host-file exclude each other")
        .hint("flock help deploy");
  if (script) out["script"] = read_input(arguments.value("host-file"), 64 * 1024);
  for (const auto& [flag, key] :
       {std::pair{"host-command", "command"}, std::pair{"host-interpreter", "interpreter"},
        std::pair{"host-timeout", "timeout"}, std::pair{"host-verify", "verify_command"},
        std::pair{"host-rollback", "rollback_command"}, std::pair{"host-run-as", "run_as"},
        std::pair{"host-reboot", "reboot"}})
    if (arguments.has(flag)) out[key] = arguments.value(flag);
  if (arguments.has("host-idempotent")) out["idempotent"] = true;
  if (!out.empty() && !script && !arguments.has("host-command"))
    throw Error(Code::kInvalidArgument, "missing: --host-command TEXT, or --host-file FILE")
        .hint("flock help deploy");
  return out;
}

// Names become ids.
bj::array devices_of(Session& s) {
  bj::array out;
  for (const std::string& name : split(s.arguments.value("devices"))) {
    const bool is_id =
        name.size() == 36 && name.find_first_not_of("0123456789abcdef-") == std::string::npos;
    out.push_back(
        bj::value(is_id ? name : value_at(s.client.get("/v1/devices/" + url_encode(name)), "id")));
  }
  return out;
}

// The fleet that was named, else the one of the context where nothing else says who is meant.
bj::object target(Session& s) {
  const Arguments& given = s.arguments;
  bj::object out;
  const std::string filter = selection_of(s).filter;
  if (!filter.empty()) out["filter"] = filter;
  if (given.has("devices")) out["device_ids"] = devices_of(s);
  if (!given.words.empty() && given.has("all-fleets"))
    throw Error(Code::kInvalidArgument, "a fleet and --all-fleets exclude each other")
        .hint("flock help deploy");
  if (given.has("all-fleets") && out.empty())
    throw Error(Code::kInvalidArgument, "--all-fleets needs --filter, -l or --devices")
        .hint("flock help deploy");
  std::string fleet = given.words.empty() ? "" : given.words.front();
  if (fleet.empty() && !given.has("all-fleets") && !given.has("devices")) {
    fleet = s.client.settings().fleet.value;
    if (fleet.empty()) fleet = given.word(0, "a fleet");
  }
  if (!fleet.empty()) out["fleet_id"] = fleet;
  if (given.has("frozen")) out["membership"] = "FROZEN";
  if (given.has("allow-empty")) out["allow_empty"] = true;
  return out;
}

std::string on_conflict(const Arguments& arguments) {
  const std::string what = arguments.value("on-conflict");
  if (what == "take-over") return "TAKE_OVER";
  if (what == "refuse") return "REFUSE";
  if (what == "leave-out") return "LEAVE_OUT";
  throw bad_flag("on-conflict", what, "is none of take-over, refuse, leave-out");
}

bj::object deployment_of(Session& s) {
  const Arguments& given = s.arguments;
  bj::object body{{"target", target(s)}};
  std::string release = given.value("release");
  if (!release.empty() && given.has("file"))
    throw Error(Code::kInvalidArgument, "--release and -f exclude each other")
        .hint("flock help deploy");
  const bj::object command = host_command(given);
  if (release.empty() && !given.has("file") && command.empty())
    throw Error(Code::kInvalidArgument,
                "missing: --release VERSION, -f FILE, or --host-command TEXT")
        .hint("flock help deploy");
  if (given.has("plan") && given.has("file"))
    throw Error(Code::kInvalidArgument, "--plan needs --release: a file is no release yet")
        .hint("flock releases create -f FILE makes one, and changes no device");
  body["strategy"] = strategy(given);
  for (const auto& [flag, key] :
       {std::pair{"soak", "soak"}, std::pair{"failure-timeout", "failure_timeout"},
        std::pair{"plan-hash", "plan_hash"}})
    if (given.has(flag)) body[key] = given.value(flag);
  if (given.has("max-failed"))
    body["max_failed_ratio"] = share(given.value("max-failed"), "max-failed");
  if (given.has("priority")) body["priority"] = number("priority", given.value("priority"), -1000);
  if (given.has("on-conflict")) body["on_conflict"] = on_conflict(given);
  if (!command.empty()) body["host_command"] = command;
  if (given.has("file")) release = value_at(create_release(s), "id");
  if (!release.empty()) body["release_id"] = release;
  return body;
}

int deploy(Session& s) {
  const bj::object body = deployment_of(s);
  if (s.arguments.has("plan"))
    return show_plan(s.output, s.client.post("/v1/deployments:plan", body));
  bj::value deployment = s.client.post("/v1/deployments", body);
  if (s.arguments.has("no-wait")) {
    print(s.output, deployment,
          {{"DEPLOYMENT", "id"}, {"RELEASE", "release.version"}, {"STATE", "state"}}, "id");
    return 0;
  }
  // The scheduler makes the rollout; usually within milliseconds.
  Loop loop;
  for (int i = 0; value_at(deployment, "rollout_id").empty(); ++i) {
    if (i == 600)
      throw Error(Code::kTimeout, "the scheduler did not begin the rollout within a minute")
          .hint("is the scheduler target running?");
    loop.run(sleep_for(Duration(100)));
    deployment = s.client.get("/v1/deployments/" + value_at(deployment, "id"));
  }
  return watch_rollout(s, value_at(deployment, "rollout_id"));
}

}  // namespace

Command deploy_command() {
  return {
      .name = "deploy",
      .summary = "roll a release or a host command out to a fleet and watch it",
      .verbs = {{.usage = "[FLEET] [--release VERSION | -f FILE] [--host-command TEXT] [--filter "
                          "EXPR] [--plan] [--soak 5s] [--failure-timeout 10m] "
                          "[--canary | --stages 1,10%] [--gate RULE] [--gates FILE] "
                          "[--on-failure WHAT] [--no-wait]",
                 .words = {Kind::kFleet},
                 .flags =
                     std::vector<Flag>{
                         {"release", "VERSION", "a release that exists", 0, Kind::kRelease}} +
                     release_flags() +
                     std::vector<Flag>{
                         {"filter", "EXPR", "of the fleet, only devices that match"},
                         {"selector", "LABELS", "the same by labels: site=oslo,stage!=test", 'l'},
                         {"devices", "LIST", "only these: names or ids, with commas"},
                         {"all-fleets", "", "devices of every fleet"},
                         {"frozen", "", "nobody joins who comes to match later"},
                         {"allow-empty", "", "also when nobody matches yet"},
                         {"plan", "", "show what it would do, and do nothing"},
                         {"plan-hash", "HASH", "only if it would still do what that plan says"},
                         {"priority", "N", "above 0 it takes devices from other rollouts"},
                         {"on-conflict", "WHAT",
                          "with rollouts of the same priority: take-over (default), refuse, "
                          "leave-out"},
                         {"soak", "DURATION", "how long a device must stay healthy to count"},
                         {"failure-timeout", "DURATION",
                          "when an unsettled device counts as failed"},
                         {"canary", "", "5% of the devices first, watched for 10 minutes"},
                         {"stages", "LIST", "in stages: 1,5%,25% (devices or shares), then all"},
                         {"stage-soak", "DURATION", "how long each stage is watched"},
                         {"spread-over", "LABEL", "each stage takes its share of each value"},
                         {"by-hand", "", "each stage begins by flock rollouts advance"},
                         {"gate", "RULE",
                          "confirmed>=95%, online, failed<=10%@20, failed_lately, unhealthy, "
                          "restarting, p95(load_1m)<=4, max(web/memory_bytes)<=1e9, comparison@20; "
                          "may stand several times"},
                         {"gates", "FILE", "gates in JSON: queries and webhooks too; - for stdin"},
                         {"max-failed", "SHARE", "above it the rollout has failed"},
                         {"max-updating", "N", "devices at the same time"},
                         {"max-per-minute", "N", "devices that begin"},
                         {"max-down-per", "LABEL=N",
                          "devices with the same value of it that are down at the same time"},
                         {"on-failure", "WHAT", "stop (default), pause or rollback"},
                         {"window", "WHEN",
                          "devices begin in it only: \"SAT,SUN 22:00-04:00 Europe/Oslo\"; without "
                          "a zone by each device's clock; may stand several times"},
                         {"retries", "N", "how often a device that failed gets it again"},
                         {"retry-after", "DURATION", "how long after it failed (5m)"},
                         {"offline-patience", "DURATION", "for devices that are away (24h)"},
                         {"start-at", "TIME", "when it begins (RFC 3339)"},
                         {"host-command", "TEXT",
                          "run on the machines by /bin/sh -c, before the release if there is one"},
                         {"host-file", "FILE", "the same as a script; - reads standard input", 0,
                          Kind::kFile},
                         {"host-interpreter", "PATH", "of the script (/bin/sh)"},
                         {"host-verify", "TEXT",
                          "a command that says whether it was done, also after a reboot"},
                         {"host-rollback", "TEXT", "when it failed, or the rollout goes back"},
                         {"host-reboot", "WHEN",
                          "never, after_success (flockd does it) or expected (the command does)"},
                         {"host-timeout", "DURATION", "of each of its programs (10m)"},
                         {"host-run-as", "USER", "a user of the machines (root)"},
                         {"host-idempotent", "", "it may be run again when it was interrupted"},
                         {"approval", "", "a second person must approve it"},
                         {"no-wait", "", "return at once instead of watching"}},
                 .run = deploy}},
      .examples = {"flock deploy demo --release 12", "flock deploy demo -f compose.yaml --soak 30s",
                   "flock deploy demo --release 12 --filter 'agent_version < 0.2' --plan",
                   "flock deploy demo --host-command 'apt-get -y upgrade' --canary "
                   "--host-reboot after_success --host-verify 'systemctl is-system-running'",
                   "flock deploy demo --release 12 --stages 1,10%,50% --stage-soak 10m --gate "
                   "'failed<=5%@10' --on-failure rollback"}};
}

}  // namespace flock::cli

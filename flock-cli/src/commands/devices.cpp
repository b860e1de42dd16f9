// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>
#include <cstdio>

#include "base/bytes.h"
#include "commands/device_verbs.h"
#include "commands/live.h"
#include "commands/simulate.h"
#include "input.h"
#include "selection.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

std::string path_of(const std::string& device) { return "/v1/devices/" + url_encode(device); }

int ls(Session& s) {
  Selection selection = selection_of(s);
  // A default fleet narrows the list as --fleet does; --all shows everything.
  if (selection.fleet.empty() && !selection.all) selection.fleet = s.client.settings().fleet.value;
  std::string query = selection.query();
  if (s.arguments.has("order-by"))
    query +=
        (query.empty() ? "" : "&") + ("order_by=" + url_encode(s.arguments.required("order-by")));
  print(s.output,
        s.client.list("/v1/devices" + (query.empty() ? "" : "?" + query),
                      number("limit", s.arguments.value("limit", "1000"), 0)),
        device_columns(), "id");
  return 0;
}

int rename(Session& s) {
  const std::string device = s.arguments.word(0, "a device: its name or id");
  print(s.output,
        s.client.send("PATCH", path_of(device),
                      bj::serialize(bj::object{{"name", s.arguments.word(1, "a new name")}})),
        device_columns(), "id");
  return 0;
}

int revoke(Session& s) {
  const std::vector<Target> targets = choose_devices(s, "Revoke");
  if (targets.size() == 1 && !s.arguments.words.empty())
    confirm(s, "Revoke " + targets[0].name + "? Its sessions end and it cannot come back.");
  bj::array items;
  for (const Target& target : targets)
    items.push_back(s.client.send("POST", path_of(target.id) + "/actions/revoke", ""));
  print(s.output, targets.size() == 1 ? items[0] : bj::object{{"items", std::move(items)}},
        device_columns(), "id");
  return 0;
}

int rm(Session& s) {
  const std::vector<Target> targets = choose_devices(s, "Revoke and remove");
  if (targets.size() == 1 && !s.arguments.words.empty())
    confirm(s, "Revoke and remove " + targets[0].name + "?");
  for (const Target& target : targets) {
    s.client.send("DELETE", path_of(target.id), "");
    std::fprintf(stderr, "Device %s is revoked and removed.\n", printable(target.name).c_str());
  }
  return 0;
}

}  // namespace

const std::vector<Column>& device_columns() {
  static const std::vector<Column> kColumns = {{"DEVICE", "name"},
                                               {"STATE", "state"},
                                               {"SINCE", "connectivity.since"},
                                               {"REASON", "connectivity.reason"},
                                               {"FLEET", "fleet.slug"},
                                               {"WANTED", "desired.release.version"},
                                               {"PHASE", "reported.phase"},
                                               {"SEEN", "last_seen_at", true},
                                               {"ID", "id"},
                                               {"ERROR", "reported.error", true}};
  return kColumns;
}

Command devices_command() {
  const std::vector<Flag> several = selection_flags() + std::vector<Flag>{yes_flag()};
  return {.name = "devices",
          .singular = "device",
          .summary = "what is registered, what it runs and should run",
          .verbs =
              std::vector<Verb>{
                  {.name = "ls",
                   .usage = "[--fleet FLEET] [-l LABELS] [--filter EXPR] [--order-by FIELDS]",
                   .flags = selection_flags() + list_flags() +
                            std::vector<Flag>{{"order-by", "FIELDS",
                                               "such as \"name\" or "
                                               "\"last_seen desc\""}},
                   .run = ls},
                  {.name = "rename",
                   .usage = "DEVICE NAME",
                   .words = {Kind::kDevice, Kind::kText},
                   .run = rename},
                  {.name = "revoke",
                   .usage = "DEVICE... | -l LABELS | --filter EXPR [--yes]",
                   .words = {Kind::kDevice},
                   .flags = several,
                   .run = revoke,
                   .repeats = true},
                  {.name = "rm",
                   .usage = "DEVICE... | -l LABELS | --filter EXPR [--yes]",
                   .words = {Kind::kDevice},
                   .flags = several,
                   .run = rm,
                   .repeats = true}} +
              device_live_verbs() + device_verbs() + device_command_verbs() +
              std::vector<Verb>{simulate_verb()},
          .examples = {"flock devices --fleet demo", "flock devices show gw-1", "flock devices top",
                       "flock devices events gw-1", "flock devices restart gw-1 --service web",
                       "flock devices -l site=oslo,stage!=test --order-by name",
                       "flock devices label gw-1 site=oslo stage-",
                       "flock devices move -l site=oslo --to north",
                       "flock devices simulate -n 50 --fleet demo --fail-update 5",
                       "flock devices -o json | jq -r '.items[] | select(.state == \"OFFLINE\") | "
                       ".name'"}};
}

}  // namespace flock::cli

// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>
#include <cstdio>

#include "base/bytes.h"
#include "input.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

const std::vector<Column> kColumns = {
    {"ID", "id"},        {"NAME", "name"},          {"KEY", "prefix"},        {"USES", "uses"},
    {"MAX", "max_uses"}, {"EXPIRES", "expires_at"}, {"REVOKED", "revoked_at"}};

int ls(Session& s) {
  print(s.output,
        s.client.list("/v1/provisioning-keys",
                      number("limit", s.arguments.value("limit", "1000"), 0)),
        kColumns, "id");
  return 0;
}

// What a key has from its making on and can be given later.
std::vector<Flag> limit_flags() {
  return {{"name", "NAME", "a name for people"},
          {"max-uses", "N", "how many devices may register with it; 1 or more"},
          {"expires-in", "DURATION", "from now, such as 24h; a new key without it never ends"}};
}
bj::object limits(const Session& s) {
  bj::object out;
  if (s.arguments.has("name")) out["name"] = s.arguments.value("name");
  if (s.arguments.has("expires-in")) out["expires_in"] = s.arguments.value("expires-in");
  if (s.arguments.has("max-uses"))
    out["max_uses"] = number("max-uses", s.arguments.value("max-uses"), 1);
  return out;
}

int create(Session& s) {
  // --fleet, FLOCK_FLEET, flock.toml or the context's default.
  const std::string fleet = s.client.settings().fleet.value;
  if (fleet.empty())
    throw Error(Code::kInvalidArgument, "missing: --fleet").hint(s.arguments.usage());
  bj::object body = limits(s);
  body["fleet_id"] = fleet;
  if (s.arguments.has("network")) {
    bj::array networks;
    for (const std::string& network : s.arguments.values("network")) networks.emplace_back(network);
    body["allowed_networks"] = std::move(networks);
  }
  if (s.arguments.has("label")) {
    bj::object labels;
    for (const std::string& label : s.arguments.values("label")) {
      const std::size_t equals = label.find('=');
      if (equals == std::string::npos || equals == 0)
        throw Error(Code::kInvalidArgument, "a label is NAME=VALUE").with("label", label);
      labels[label.substr(0, equals)] = label.substr(equals + 1);
    }
    body["labels"] = std::move(labels);
  }
  if (s.arguments.has("approval")) body["approval_required"] = true;
  if (s.arguments.has("preregistered")) body["mode"] = "PREREGISTERED";
  print(s.output, s.client.post("/v1/provisioning-keys", body), {{"KEY", "secret"}}, "id");
  if (s.output.is_table())
    std::fputs("It is shown only now; put it into the device's provisioning_key_file.\n", stderr);
  return 0;
}

int show(Session& s) {
  print(s.output,
        s.client.get("/v1/provisioning-keys/" + url_encode(s.arguments.word(0, "a key id"))),
        {{"ID", "id"},
         {"NAME", "name"},
         {"USES", "uses"},
         {"MODE", "mode"},
         {"APPROVAL", "approval_required"},
         {"NETWORKS", "allowed_networks"},
         {"LABELS", "labels"}},
        "id");
  return 0;
}

int change(Session& s) {
  const std::string key = s.arguments.word(0, "a key id");
  const bj::object body = limits(s);
  if (body.empty())
    throw Error(Code::kInvalidArgument, "missing: --name, --max-uses or --expires-in")
        .hint(s.arguments.usage());
  print(s.output,
        s.client.send("PATCH", "/v1/provisioning-keys/" + url_encode(key), bj::serialize(body)),
        kColumns, "id");
  return 0;
}

const std::vector<Column> kDeviceColumns = {{"ID", "id"},
                                            {"THUMBPRINT", "thumbprint"},
                                            {"NAME", "name"},
                                            {"DEVICE", "device_id"},
                                            {"NAMED", "created_at", true}};

std::string devices_path(const std::string& key) {
  return "/v1/provisioning-keys/" + url_encode(key) + "/devices";
}

int devices(Session& s) {
  print(s.output,
        s.client.list(devices_path(s.arguments.word(0, "a key id")),
                      number("limit", s.arguments.value("limit", "1000"), 0)),
        kDeviceColumns, "id");
  return 0;
}

int add_device(Session& s) {
  const std::string key = s.arguments.word(0, "a key id");
  bj::object body{{"thumbprint", s.arguments.word(1, "the thumbprint of the device's key")}};
  if (s.arguments.has("name")) body["name"] = s.arguments.value("name");
  print(s.output, s.client.post(devices_path(key), body), kDeviceColumns, "id");
  return 0;
}

int remove_device(Session& s) {
  const std::string key = s.arguments.word(0, "a key id"),
                    device = s.arguments.word(1, "the id of the device's line: flock keys devices");
  confirm(s, "Take " + device + " off the key's list? It may not come in any more.");
  s.client.send("DELETE", devices_path(key) + "/" + url_encode(device), "");
  std::fputs("It may not come in any more; a device that did stays.\n", stderr);
  return 0;
}

int revoke(Session& s) {
  const std::string key = s.arguments.word(0, "a key id");
  confirm(s, "Revoke the key " + key + "? No further device can register with it.");
  s.client.send("DELETE", "/v1/provisioning-keys/" + url_encode(key), "");
  std::fputs("The key is revoked; devices that registered with it stay.\n", stderr);
  return 0;
}

}  // namespace

Command keys_command() {
  return {.name = "keys",
          .singular = "key",
          .summary = "provisioning keys: what a new device registers with",
          .verbs = {{.name = "ls", .usage = "[--limit N]", .flags = list_flags(), .run = ls},
                    {.name = "show", .usage = "ID", .words = {Kind::kKey}, .run = show},
                    {.name = "create",
                     .usage = "--fleet FLEET [--name NAME] [--max-uses N] [--expires-in 24h] "
                              "[--network CIDR] [--label "
                              "NAME=VALUE] [--approval] [--preregistered]",
                     .summary = "prints the key, once",
                     .flags = std::vector<Flag>{{"fleet", "FLEET", "a fleet's slug or id", 0,
                                                 Kind::kFleet}} +
                              limit_flags() +
                              std::vector<Flag>{
                                  {"network", "CIDR", "devices must come from there; may repeat"},
                                  {"label", "NAME=VALUE", "what its devices get; may repeat"},
                                  {"approval", "", "each device waits: flock device-requests"},
                                  {"preregistered", "", "only devices named by add-device"}},
                     .run = create},
                    {.name = "change",
                     .usage = "ID [--name NAME] [--max-uses N] [--expires-in 24h]",
                     .words = {Kind::kKey},
                     .flags = limit_flags(),
                     .run = change},
                    {.name = "devices",
                     .usage = "ID [--limit N]",
                     .summary = "which devices may come in with it, and which did",
                     .words = {Kind::kKey},
                     .flags = list_flags(),
                     .run = devices},
                    {.name = "add-device",
                     .usage = "ID THUMBPRINT [--name NAME]",
                     .summary = "name a device that may come in",
                     .words = {Kind::kKey, Kind::kText},
                     .flags = {{"name", "NAME", "what the device is called when it comes"}},
                     .run = add_device},
                    {.name = "remove-device",
                     .usage = "ID LINE [--yes]",
                     .summary = "it may not come in any more",
                     .words = {Kind::kKey, Kind::kText},
                     .flags = {yes_flag()},
                     .run = remove_device},
                    {.name = "revoke",
                     .usage = "ID [--yes]",
                     .words = {Kind::kKey},
                     .flags = {yes_flag()},
                     .run = revoke}},
          .examples = {"flock keys create --fleet demo --max-uses 10 --expires-in 24h"}};
}

}  // namespace flock::cli

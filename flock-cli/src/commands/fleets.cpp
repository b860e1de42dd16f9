// SPDX-License-Identifier: Apache-2.0
// fleets and keys.
#include <boost/json.hpp>
#include <charconv>
#include <cstdio>

#include "base/bytes.h"
#include "commands/commands.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

const std::vector<Column> kFleetColumns = {{"FLEET", "slug"},
                                           {"NAME", "name"},
                                           {"DEVICES", "device_count"},
                                           {"ONLINE", "online_count"},
                                           {"RELEASE", "current_release.version"},
                                           {"CREATED", "created_at"}};
const std::vector<Column> kKeyColumns = {
    {"ID", "id"},        {"NAME", "name"},          {"KEY", "prefix"},        {"USES", "uses"},
    {"MAX", "max_uses"}, {"EXPIRES", "expires_at"}, {"REVOKED", "revoked_at"}};

std::int64_t count_of(const std::string& text) {
  std::int64_t count = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, count);
  if (error != std::errc() || stop != end || count < 1)
    throw Error(Code::kInvalidArgument, "--max-uses must be a whole number from 1");
  return count;
}

}  // namespace

int run_fleets(Session& s) {
  const std::string verb = s.arguments.words.size() < 2 ? "ls" : s.arguments.words[1];
  s.arguments.at_most(3);
  if (verb == "ls") {
    print(s.output, s.client.list("/v1/fleets"), kFleetColumns, "slug");
  } else if (verb == "show") {
    print(s.output, s.client.get("/v1/fleets/" + url_encode(s.arguments.word(2, "a fleet"))),
          kFleetColumns, "slug");
  } else if (verb == "create") {
    print(s.output,
          s.client.post("/v1/fleets", bj::object{{"name", s.arguments.word(2, "a name")}}),
          kFleetColumns, "slug");
  } else if (verb == "rm") {
    const std::string fleet = s.arguments.word(2, "a fleet");
    confirm(s, "Remove the fleet " + fleet + "?");
    s.client.send("DELETE", "/v1/fleets/" + url_encode(fleet), "");
    std::fprintf(stderr, "Fleet %s is removed.\n", fleet.c_str());
  } else {
    unknown_verb("fleets", verb, "ls|show|create|rm");
  }
  return 0;
}

int run_keys(Session& s) {
  const std::string verb = s.arguments.words.size() < 2 ? "ls" : s.arguments.words[1];
  s.arguments.at_most(3);
  if (verb == "ls") {
    print(s.output, s.client.list("/v1/provisioning-keys"), kKeyColumns, "id");
  } else if (verb == "create") {
    bj::object body{{"fleet_id", s.arguments.required("fleet")}};
    if (s.arguments.has("name")) body["name"] = s.arguments.value("name");
    if (s.arguments.has("expires-in")) body["expires_in"] = s.arguments.value("expires-in");
    if (s.arguments.has("max-uses")) body["max_uses"] = count_of(s.arguments.value("max-uses"));
    const bj::value key = s.client.post("/v1/provisioning-keys", body);
    print(s.output, key, {{"KEY", "secret"}}, "id");
    if (s.output.format == Format::kTable)
      std::fputs("It is shown only now; put it into the device's provisioning_key_file.\n", stderr);
  } else if (verb == "revoke") {
    const std::string key = s.arguments.word(2, "a key id");
    confirm(s, "Revoke the key " + key + "? No further device can register with it.");
    s.client.send("DELETE", "/v1/provisioning-keys/" + url_encode(key), "");
    std::fputs("The key is revoked; devices that registered with it stay.\n", stderr);
  } else {
    unknown_verb("keys", verb, "ls|create|revoke");
  }
  return 0;
}

}  // namespace flock::cli

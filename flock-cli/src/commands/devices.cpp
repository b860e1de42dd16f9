// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>
#include <cstdio>

#include "base/bytes.h"
#include "commands/commands.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

const std::vector<Column> kColumns = {{"DEVICE", "name"},
                                      {"STATE", "state"},
                                      {"FLEET", "fleet.slug"},
                                      {"WANTED", "desired.release.version"},
                                      {"PHASE", "reported.phase"},
                                      {"SEEN", "last_seen_at"},
                                      {"ID", "id"}};

}  // namespace

int run_devices(Session& s) {
  const std::string verb = s.arguments.words.size() < 2 ? "ls" : s.arguments.words[1];
  const auto path = [&] {
    s.arguments.at_most(verb == "rename" ? 4 : 3);
    return "/v1/devices/" + url_encode(s.arguments.word(2, "a device: its name or id"));
  };
  if (verb == "ls") {
    const std::string fleet = s.arguments.value("fleet");
    s.arguments.at_most(2);
    print(s.output,
          s.client.list("/v1/devices" + (fleet.empty() ? "" : "?fleet_id=" + url_encode(fleet))),
          kColumns, "id");
  } else if (verb == "show") {
    const bj::value device = s.client.get(path());
    print(s.output, device, kColumns, "id");
    if (s.output.format != Format::kTable) return 0;
    if (const std::string error = value_at(device, "reported.error"); !error.empty())
      std::printf("\n%s: %s\n", value_at(device, "reported.error_code").c_str(),
                  printable(error).c_str());
    const auto* reported = device.as_object().if_contains("reported");
    if (reported != nullptr) {
      std::puts("");
      Output output = s.output;
      print(output, bj::object{{"items", reported->at("services")}},
            {{"SERVICE", "name"},
             {"CONTAINER", "state"},
             {"HEALTH", "health"},
             {"RESTARTS", "restart_count"},
             {"IMAGE", "image_digest"}},
            "name");
    }
  } else if (verb == "rename") {
    print(s.output,
          s.client.send("PATCH", path(),
                        bj::serialize(bj::object{{"name", s.arguments.word(3, "a new name")}})),
          kColumns, "id");
  } else if (verb == "revoke") {
    const std::string device = path();
    confirm(s, "Revoke " + s.arguments.words[2] + "? Its sessions end and it cannot come back.");
    print(s.output, s.client.send("POST", device + "/actions/revoke", ""), kColumns, "id");
  } else if (verb == "rm") {
    const std::string device = path();
    confirm(s, "Revoke and remove " + s.arguments.words[2] + "?");
    s.client.send("DELETE", device, "");
    std::fprintf(stderr, "Device %s is revoked and removed.\n", s.arguments.words[2].c_str());
  } else {
    unknown_verb("devices", verb, "ls|show|rename|revoke|rm");
  }
  return 0;
}

}  // namespace flock::cli

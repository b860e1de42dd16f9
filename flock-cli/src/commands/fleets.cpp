// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>
#include <cstdio>

#include "base/bytes.h"
#include "input.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

const std::vector<Column> kColumns = {{"FLEET", "slug"},
                                      {"NAME", "name"},
                                      {"DEVICES", "device_count"},
                                      {"ONLINE", "online_count"},
                                      {"RELEASE", "current_release.version"},
                                      {"CREATED", "created_at"},
                                      {"ID", "id", true}};

int ls(Session& s) {
  print(s.output,
        s.client.list("/v1/fleets", number("limit", s.arguments.value("limit", "1000"), 0)),
        kColumns, "slug");
  return 0;
}

int show(Session& s) {
  print(s.output, s.client.get("/v1/fleets/" + url_encode(s.arguments.word(0, "a fleet"))),
        kColumns, "slug");
  return 0;
}

int create(Session& s) {
  print(s.output, s.client.post("/v1/fleets", bj::object{{"name", s.arguments.word(0, "a name")}}),
        kColumns, "slug");
  return 0;
}

int rename(Session& s) {
  const std::string path = "/v1/fleets/" + url_encode(s.arguments.word(0, "a fleet"));
  const bj::object body{{"name", s.arguments.word(1, "the new name")}};
  print(s.output, s.client.send("PATCH", path, bj::serialize(body)), kColumns, "slug");
  return 0;
}

int rm(Session& s) {
  const std::string fleet = s.arguments.word(0, "a fleet");
  confirm(s, "Remove the fleet " + fleet + "?");
  s.client.send("DELETE", "/v1/fleets/" + url_encode(fleet), "");
  std::fprintf(stderr, "Fleet %s is removed.\n", printable(fleet).c_str());
  return 0;
}

}  // namespace

Command fleets_command() {
  return {.name = "fleets",
          .singular = "fleet",
          .summary = "devices that get the same releases",
          .verbs = {{.name = "ls", .usage = "[--limit N]", .flags = list_flags(), .run = ls},
                    {.name = "show", .usage = "FLEET", .words = {Kind::kFleet}, .run = show},
                    {.name = "create", .usage = "NAME", .words = {Kind::kText}, .run = create},
                    {.name = "rename",
                     .usage = "FLEET NAME",
                     .words = {Kind::kFleet, Kind::kText},
                     .run = rename},
                    {.name = "rm",
                     .usage = "FLEET [--yes]",
                     .words = {Kind::kFleet},
                     .flags = {yes_flag()},
                     .run = rm}},
          .examples = {"flock fleets create \"Oslo gateways\"", "flock fleets show oslo-gateways"}};
}

}  // namespace flock::cli

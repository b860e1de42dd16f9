// SPDX-License-Identifier: Apache-2.0
#include "commands/releases.h"

#include <boost/json.hpp>
#include <cstdio>

#include "base/bytes.h"
#include "input.h"

namespace flock::cli {

namespace bj = boost::json;

bj::value create_release(Session& s) {
  bj::object body{{"compose", read_input(s.arguments.required("file"), 256 * 1024)}};
  if (s.arguments.has("version")) body["version"] = s.arguments.value("version");
  if (s.arguments.has("note")) body["note"] = s.arguments.value("note");
  bj::value release = s.client.post("/v1/releases", body);
  for (const bj::value& note : release.at("notes").as_array())
    std::fprintf(stderr, "note: %s %s\n", printable(value_at(note, "pointer")).c_str(),
                 printable(value_at(note, "detail")).c_str());
  return release;
}

std::vector<Flag> release_flags() {
  return {{"file", "FILE", "a compose file; - reads standard input", 'f', Kind::kFile},
          {"version", "VERSION", "the release's version; default: the next number"},
          {"note", "TEXT", "what is new, for people"}};
}

namespace {

const std::vector<Column> kColumns = {{"VERSION", "version"},
                                      {"STATE", "state"},
                                      {"CREATED", "created_at"},
                                      {"NOTE", "note"},
                                      {"ID", "id"}};

int ls(Session& s) {
  print(s.output,
        s.client.list("/v1/releases", number("limit", s.arguments.value("limit", "1000"), 0)),
        kColumns, "id");
  return 0;
}

int show(Session& s) {
  const bj::value release =
      s.client.get("/v1/releases/" + url_encode(s.arguments.word(0, "a version or id")));
  print(s.output, release, kColumns, "id");
  if (!s.output.is_table()) return 0;
  std::puts("");
  Output output = s.output;
  output.columns.clear();  // they were for the release
  print(output, bj::object{{"items", release.at("services")}},
        {{"SERVICE", "name"}, {"IMAGE", "image"}, {"PLATFORMS", "platforms.platform"}}, "name");
  return 0;
}

int create(Session& s) {
  print(s.output, create_release(s), kColumns, "id");
  return 0;
}

}  // namespace

Command releases_command() {
  return {.name = "releases",
          .singular = "release",
          .summary = "compose files locked to digests; never changed",
          .verbs = {{.name = "ls", .usage = "[--limit N]", .flags = list_flags(), .run = ls},
                    {.name = "show", .usage = "VERSION", .words = {Kind::kRelease}, .run = show},
                    {.name = "create",
                     .usage = "-f FILE [--version VERSION] [--note TEXT]",
                     .flags = release_flags(),
                     .run = create}},
          .examples = {"flock releases create -f compose.yaml --note \"new camera driver\""}};
}

}  // namespace flock::cli

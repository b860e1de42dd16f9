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
  if (s.arguments.has("draft")) body["draft"] = true;
  if (s.arguments.has("tag")) {
    bj::array tags;
    for (const std::string& tag : s.arguments.values("tag")) tags.emplace_back(tag);
    body["tags"] = std::move(tags);
  }
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

const std::vector<Column> kColumns = {{"VERSION", "version"},    {"STATE", "state"},
                                      {"CREATED", "created_at"}, {"TAGS", "tags"},
                                      {"NOTE", "note"},          {"ID", "id"}};

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

std::string path_of(Session& s) {
  return "/v1/releases/" + url_encode(s.arguments.word(0, "a version or id"));
}

int replace(Session& s) {
  const bj::object body{{"compose", read_input(s.arguments.required("file"))}};
  print(s.output, s.client.send("PUT", path_of(s), bj::serialize(body)), kColumns, "id");
  return 0;
}

int finalize(Session& s) {
  print(s.output, s.client.send("POST", path_of(s) + "/actions/finalize", ""), kColumns, "id");
  return 0;
}

int invalidate(Session& s) {
  const bj::object body{{"reason", s.arguments.required("reason")}};
  confirm(s, "Nobody can deploy the release " + s.arguments.word(0, "a version or id") +
                 " any more; devices that run it keep it. Go on?");
  print(s.output, s.client.post(path_of(s) + "/actions/invalidate", body), kColumns, "id");
  return 0;
}

int note(Session& s) {
  const bj::object body{{"note", s.arguments.word(1, "a note; '' takes it away")}};
  print(s.output, s.client.send("PATCH", path_of(s), bj::serialize(body)), kColumns, "id");
  return 0;
}

// All tags at once: what is not named goes.
int tag(Session& s) {
  bj::array tags;
  for (std::size_t i = 1; i < s.arguments.words.size(); ++i)
    tags.emplace_back(s.arguments.words[i]);
  const bj::object body{{"tags", std::move(tags)}};
  print(s.output, s.client.send("PATCH", path_of(s), bj::serialize(body)), kColumns, "id");
  return 0;
}

// One line for each field; JSON and YAML as the server has it.
int diff(Session& s) {
  const bj::value found =
      s.client.get(path_of(s) + "/diff?to=" + url_encode(s.arguments.word(1, "another release")));
  if (s.output.format == Format::kJson || s.output.format == Format::kYaml) {
    print(s.output, found, {}, "name");
    return 0;
  }
  bj::array lines;
  for (const bj::value& service : found.at("services").as_array()) {
    bj::object line{{"service", service.at("name")}, {"change", service.at("change")}};
    if (service.at("fields").as_array().empty()) lines.push_back(line);
    for (const bj::value& field : service.at("fields").as_array()) {
      line["field"] = field.at("field");
      for (const char* side : {"from", "to"}) {
        const bj::value* value = field.as_object().if_contains(side);
        line[side] = value == nullptr     ? bj::value("")
                     : value->is_string() ? *value
                                          : bj::value(bj::serialize(*value));
      }
      lines.push_back(line);
    }
  }
  print(s.output, bj::object{{"items", std::move(lines)}},
        {{"SERVICE", "service"},
         {"CHANGE", "change"},
         {"FIELD", "field"},
         {"FROM", "from"},
         {"TO", "to"}},
        "service");
  return 0;
}

// Both rules at once: one that is not named goes.
int retention(Session& s) {
  bj::object rules;
  if (s.arguments.has("keep-last"))
    rules["keep_last"] = number("keep-last", s.arguments.value("keep-last"), 1);
  if (s.arguments.has("keep-days"))
    rules["keep_days"] = number("keep-days", s.arguments.value("keep-days"), 1);
  const bool all = s.arguments.has("keep-all");
  if (all && !rules.empty())
    throw Error(Code::kInvalidArgument, "--keep-all is no rule beside others")
        .hint(s.arguments.usage());
  if (!rules.empty()) confirm(s, "Delete older releases by these rules, now and from now on?");
  const bj::value now = all || !rules.empty()
                            ? s.client.send("PUT", "/v1/release-retention", bj::serialize(rules))
                            : s.client.get("/v1/release-retention");
  print(s.output, now, {{"NEWEST", "keep_last"}, {"DAYS", "keep_days"}}, "keep_last");
  if (s.output.is_table() && now.as_object().empty())
    std::fputs("Every release is kept.\n", stderr);
  return 0;
}

int rm(Session& s) {
  const std::string name = s.arguments.word(0, "a version or id");
  confirm(s, "Delete the release " + name + "?");
  s.client.send("DELETE", path_of(s), "");
  std::fprintf(stderr, "Release %s is deleted.\n", printable(name).c_str());
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
                     .usage = "-f FILE [--version VERSION] [--note TEXT] [--tag TAG] [--draft]",
                     .flags = release_flags() +
                              std::vector<Flag>{
                                  {"tag", "TAG", "a tag; may repeat"},
                                  {"draft", "",
                                   "it can be replaced, and not be deployed, until it is final"}},
                     .run = create},
                    {.name = "replace",
                     .usage = "VERSION -f FILE",
                     .summary = "the compose file of a draft; its images are locked again",
                     .words = {Kind::kRelease},
                     .flags = {{"file", "FILE", "a compose file; - reads standard input", 'f',
                                Kind::kFile}},
                     .run = replace},
                    {.name = "finalize",
                     .usage = "VERSION",
                     .summary = "a draft never changes again, and can be deployed",
                     .words = {Kind::kRelease},
                     .run = finalize},
                    {.name = "invalidate",
                     .usage = "VERSION --reason TEXT [--yes]",
                     .summary = "nobody can deploy it any more",
                     .words = {Kind::kRelease},
                     .flags = std::vector<Flag>{{"reason", "TEXT", "why, for people"}} +
                              std::vector<Flag>{yes_flag()},
                     .run = invalidate},
                    {.name = "note",
                     .usage = "VERSION TEXT",
                     .words = {Kind::kRelease, Kind::kText},
                     .run = note},
                    {.name = "tag",
                     .usage = "VERSION [TAG...]",
                     .summary = "the tags it has from now on",
                     .words = {Kind::kRelease, Kind::kText},
                     .run = tag,
                     .repeats = true},
                    {.name = "diff",
                     .usage = "VERSION VERSION",
                     .summary = "what changes from one to the other",
                     .words = {Kind::kRelease, Kind::kRelease},
                     .run = diff},
                    {.name = "retention",
                     .usage = "[--keep-last N] [--keep-days N] [--keep-all] [--yes]",
                     .summary = "which old releases go by themselves; with a flag: from now on",
                     .flags = {{"keep-last", "N", "the newest so many stay"},
                               {"keep-days", "N", "those that are younger stay"},
                               {"keep-all", "", "no rule: nothing goes by itself"},
                               yes_flag()},
                     .run = retention},
                    {.name = "rm",
                     .usage = "VERSION [--yes]",
                     .words = {Kind::kRelease},
                     .flags = {yes_flag()},
                     .run = rm}},
          .examples = {"flock releases create -f compose.yaml --note \"new camera driver\""}};
}

}  // namespace flock::cli

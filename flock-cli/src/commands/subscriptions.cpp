// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>
#include <cstdio>

#include "base/bytes.h"
#include "input.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

const std::vector<Column> kColumns = {{"ID", "id"},         {"NAME", "name"},
                                      {"URL", "url"},       {"EVENTS", "event_types"},
                                      {"FILTER", "filter"}, {"ENABLED", "enabled"}};

int ls(Session& s) {
  print(s.output,
        s.client.list("/v1/event-subscriptions",
                      number("limit", s.arguments.value("limit", "1000"), 0)),
        kColumns, "id");
  return 0;
}

std::string path_of(Session& s) {
  return "/v1/event-subscriptions/" + url_encode(s.arguments.word(0, "a subscription's id"));
}

void print_secret(Session& s, const bj::value& made) {
  print(s.output, made, {{"SECRET", "secret"}, {"ID", "id", true}}, "id");
  if (s.output.is_table())
    std::fputs("It is shown only now; the receiver checks signatures with it.\n", stderr);
}

int create(Session& s) {
  bj::array types;
  for (const std::string& type : s.arguments.values("event")) types.emplace_back(type);
  if (types.empty()) types.emplace_back("*");
  bj::object body{{"name", s.arguments.required("name")},
                  {"url", s.arguments.required("url")},
                  {"event_types", std::move(types)}};
  if (s.arguments.has("filter")) body["filter"] = s.arguments.value("filter");
  print_secret(s, s.client.post("/v1/event-subscriptions", body));
  return 0;
}

int set_enabled(Session& s, bool enabled) {
  const bj::object body{{"enabled", enabled}};
  print(s.output, s.client.send("PATCH", path_of(s), bj::serialize(body)), kColumns, "id");
  return 0;
}

int enable(Session& s) { return set_enabled(s, true); }
int disable(Session& s) { return set_enabled(s, false); }

int rotate(Session& s) {
  print_secret(s, s.client.send("POST", path_of(s) + "/actions/rotate-secret", ""));
  return 0;
}

int rm(Session& s) {
  const std::string path = path_of(s);
  confirm(s, "Delete the subscription " + s.arguments.word(0, "a subscription's id") + "?");
  s.client.send("DELETE", path, "");
  std::fputs("The subscription is deleted.\n", stderr);
  return 0;
}

}  // namespace

Command subscriptions_command() {
  return {
      .name = "subscriptions",
      .singular = "subscription",
      .summary = "where to be told of events, as webhooks",
      .verbs = {{.name = "ls", .usage = "[--limit N]", .flags = list_flags(), .run = ls},
                {.name = "create",
                 .usage = "--name NAME --url URL [--event TYPE] [--filter FILTER]",
                 .summary = "prints the secret, once",
                 .flags = {{"name", "NAME", "a name for people"},
                           {"url", "URL", "an https address"},
                           {"event", "TYPE", "such as rollout.*; may repeat; default: all"},
                           {"filter", "FILTER", "such as labels.site = oslo"}},
                 .run = create},
                {.name = "enable", .usage = "ID", .words = {Kind::kText}, .run = enable},
                {.name = "disable", .usage = "ID", .words = {Kind::kText}, .run = disable},
                {.name = "rotate",
                 .usage = "ID",
                 .summary = "another secret; the old one signs too for a day",
                 .words = {Kind::kText},
                 .run = rotate},
                {.name = "rm",
                 .usage = "ID [--yes]",
                 .words = {Kind::kText},
                 .flags = {yes_flag()},
                 .run = rm}},
      .examples = {"flock subscriptions create --name ops --url https://hooks.acme.example/flock "
                   "--event rollout.*"}};
}

}  // namespace flock::cli

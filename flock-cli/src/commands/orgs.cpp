// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>
#include <cstdio>

#include "base/bytes.h"
#include "contexts.h"
#include "input.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

const std::vector<Column> kColumns = {{"ORGANIZATION", "slug"},
                                      {"NAME", "name"},
                                      {"ROLE", "role"},
                                      {"CREATED", "created_at"},
                                      {"ID", "id", true}};

int ls(Session& s) {
  print(s.output,
        s.client.list("/v1/organizations", number("limit", s.arguments.value("limit", "1000"), 0)),
        kColumns, "slug");
  return 0;
}

// A request is about one organization, and this one need not be the one in use.
Client about(const Session& s, const std::string& organization) {
  Settings settings = s.client.settings();
  settings.organization = {organization, "argument"};
  return Client(std::move(settings));
}

int show(Session& s) {
  const std::string name = s.arguments.word(0, "an organization: its slug or id");
  print(s.output, about(s, name).get("/v1/organizations/" + url_encode(name)), kColumns, "slug");
  return 0;
}

int create(Session& s) {
  print(s.output,
        s.client.post("/v1/organizations", bj::object{{"name", s.arguments.word(0, "a name")}}),
        kColumns, "slug");
  return 0;
}

int rename(Session& s) {
  const std::string org = s.arguments.word(0, "an organization: its slug or id");
  const bj::object body{{"name", s.arguments.word(1, "the new name")}};
  print(s.output,
        about(s, org).send("PATCH", "/v1/organizations/" + url_encode(org), bj::serialize(body)),
        kColumns, "slug");
  return 0;
}

// Shown, or changed by what is named. The server's own configuration holds for 0.
int retention(Session& s) {
  const std::string org = s.arguments.word(0, "an organization: its slug or id"),
                    path = "/v1/organizations/" + url_encode(org);
  bj::object days;
  for (const auto& [flag, member] :
       {std::pair("telemetry-days", "telemetry_days"), std::pair("logs-days", "logs_days")}) {
    if (s.arguments.has(flag)) days[member] = number(flag, s.arguments.value(flag), 0);
  }
  bj::value now;
  if (days.empty()) {
    now = about(s, org).get(path);
  } else {
    confirm(s, "Change how long " + org + " keeps its data? What is older goes and is lost.");
    now = about(s, org).send("PATCH", path, bj::serialize(bj::object{{"retention", days}}));
  }
  print(s.output, now,
        {{"ORGANIZATION", "slug"},
         {"TELEMETRY DAYS", "retention.telemetry_days"},
         {"LOGS DAYS", "retention.logs_days"}},
        "slug");
  return 0;
}

int use(Session& s) {
  const std::string name = s.arguments.word(0, "an organization: its slug or id");
  const std::string context = s.client.settings().context.value;
  Config config = load_config();
  const auto found = config.contexts.find(context);
  if (found == config.contexts.end())
    throw Error(Code::kNotFound, "no context is configured").hint("flock login --server URL");
  // Asked as a member of it: a wrong name is refused here and not by every command after.
  const bj::value who = about(s, name).get("/v1/whoami");
  const std::string slug = value_at(who, "organization.slug");
  if (slug != name && value_at(who, "organization.id") != name)
    throw Error(Code::kForbidden, "you cannot work in `" + name + "`")
        .with("organization", slug)
        .hint("flock orgs");
  found->second.organization = name;
  save_config(config);
  std::fprintf(stderr, "Commands are about %s now.\n", printable(name).c_str());
  return 0;
}

}  // namespace

Command orgs_command() {
  return {.name = "orgs",
          .singular = "org",
          .summary = "organizations you are a member of",
          .verbs = {{.name = "ls", .usage = "[--limit N]", .flags = list_flags(), .run = ls},
                    {.name = "show", .usage = "ORG", .words = {Kind::kOrganization}, .run = show},
                    {.name = "create", .usage = "NAME", .words = {Kind::kText}, .run = create},
                    {.name = "rename",
                     .usage = "ORG NAME",
                     .summary = "its slug stays",
                     .words = {Kind::kOrganization, Kind::kText},
                     .run = rename},
                    {.name = "retention",
                     .usage = "ORG [--telemetry-days N] [--logs-days N] [--yes]",
                     .summary = "how long it keeps metrics and logs; with a flag: from now on",
                     .words = {Kind::kOrganization},
                     .flags = {{"telemetry-days", "N", "of metrics; 0: as the server is set up"},
                               {"logs-days", "N", "of container logs; 0: as the server is set up"},
                               yes_flag()},
                     .run = retention},
                    {.name = "use",
                     .usage = "ORG",
                     .summary = "work in it from now on, in this context",
                     .words = {Kind::kOrganization},
                     .run = use}},
          .examples = {"flock orgs create \"Acme Sensors\"", "flock orgs use acme-sensors",
                       "flock orgs retention acme-sensors --telemetry-days 90 --logs-days 30",
                       "flock devices --org acme-sensors"}};
}

}  // namespace flock::cli

// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>
#include <cstdio>

#include "base/bytes.h"
#include "input.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

const std::vector<Column> kColumns = {{"MEMBER", "email"},      {"NAME", "name"},
                                      {"ROLE", "role"},         {"FLEETS", "fleet_ids"},
                                      {"JOINED", "created_at"}, {"ID", "id"}};
const std::vector<Column> kInvitationColumns = {{"INVITED", "email"},    {"ROLE", "role"},
                                                {"STATE", "state"},      {"EXPIRES", "expires_at"},
                                                {"SINCE", "created_at"}, {"ID", "id"}};

void add_fleets(const Session& s, bj::object& body) {
  if (!s.arguments.has("fleet")) return;
  bj::array fleets;
  for (const std::string& fleet : s.arguments.values("fleet")) fleets.emplace_back(fleet);
  body["fleet_ids"] = std::move(fleets);
}

std::int64_t limit_of(const Session& s) {
  return number("limit", s.arguments.value("limit", "1000"), 0);
}

int ls(Session& s) {
  print(s.output, s.client.list("/v1/members", limit_of(s)), kColumns, "id");
  return 0;
}

int invite(Session& s) {
  bj::object body{{"email", s.arguments.word(0, "an e-mail address")},
                  {"role", s.arguments.value("role", "viewer")}};
  add_fleets(s, body);
  if (s.arguments.has("expires-in")) body["expires_in"] = s.arguments.value("expires-in");
  const bj::value invitation = s.client.post("/v1/invitations", body);
  print(s.output, invitation, {{"INVITATION", "secret"}, {"ID", "id", true}}, "id");
  if (s.output.is_table())
    std::fputs("It is shown only now. Whom you invite runs: flock members accept INVITATION\n",
               stderr);
  return 0;
}

int invitations(Session& s) {
  print(s.output, s.client.list("/v1/invitations", limit_of(s)), kInvitationColumns, "id");
  return 0;
}

int revoke(Session& s) {
  const std::string id = s.arguments.word(0, "an invitation's id");
  confirm(s, "Take back the invitation " + id + "?");
  s.client.send("DELETE", "/v1/invitations/" + url_encode(id), "");
  std::fputs("The invitation is taken back.\n", stderr);
  return 0;
}

// A token on a command line can be seen by others on the machine; "-" reads it.
int accept(Session& s) {
  std::string token = s.arguments.word(0, "the invitation");
  if (token == "-") token = trimmed(read_input("-", 64 * 1024));
  const bj::value answer = s.client.post("/v1/invitations/accept", bj::object{{"token", token}});
  print(s.output, answer,
        {{"ORGANIZATION", "organization.slug"},
         {"NAME", "organization.name"},
         {"ROLE", "role"},
         {"ID", "id", true}},
        "id");
  return 0;
}

int role(Session& s) {
  bj::object body{{"role", s.arguments.word(1, "a role: owner, admin, developer or viewer")}};
  add_fleets(s, body);
  print(s.output,
        s.client.send("PATCH", "/v1/members/" + url_encode(s.arguments.words[0]),
                      bj::serialize(body)),
        kColumns, "id");
  return 0;
}

int rm(Session& s) {
  const std::string member = s.arguments.word(0, "a member's id");
  confirm(s, "Remove the member " + member + " from the organization?");
  s.client.send("DELETE", "/v1/members/" + url_encode(member), "");
  std::fprintf(stderr, "Member %s is removed.\n", printable(member).c_str());
  return 0;
}

}  // namespace

Command members_command() {
  const Flag fleet{"fleet", "FLEET", "only this fleet; may stand several times", 0, Kind::kFleet};
  return {.name = "members",
          .singular = "member",
          .summary = "who belongs to the organization, and as what",
          .verbs = {{.name = "ls", .usage = "[--limit N]", .flags = list_flags(), .run = ls},
                    {.name = "invite",
                     .usage = "EMAIL [--role ROLE] [--fleet FLEET] [--expires-in 72h]",
                     .summary = "prints the invitation, once",
                     .words = {Kind::kText},
                     .flags = {{"role", "ROLE", "owner, admin, developer or viewer (default)", 0,
                                Kind::kRole},
                               fleet,
                               {"expires-in", "DURATION", "such as 72h"}},
                     .run = invite},
                    {.name = "invitations",
                     .usage = "[--limit N]",
                     .summary = "those not yet accepted",
                     .flags = list_flags(),
                     .run = invitations},
                    {.name = "revoke",
                     .usage = "INVITATION-ID [--yes]",
                     .summary = "takes an invitation back",
                     .words = {Kind::kText},
                     .flags = {yes_flag()},
                     .run = revoke},
                    {.name = "accept",
                     .usage = "INVITATION",
                     .summary = "- reads it from standard input",
                     .words = {Kind::kText},
                     .run = accept},
                    {.name = "role",
                     .usage = "MEMBER ROLE [--fleet FLEET]",
                     .words = {Kind::kMember, Kind::kRole},
                     .flags = {fleet},
                     .run = role},
                    {.name = "rm",
                     .usage = "MEMBER [--yes]",
                     .words = {Kind::kMember},
                     .flags = {yes_flag()},
                     .run = rm}},
          .examples = {"flock members invite ada@example.com --role developer --fleet oslo",
                       "flock members role mem_1 admin"}};
}

}  // namespace flock::cli

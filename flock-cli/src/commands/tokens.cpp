// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>
#include <cstdio>

#include "base/bytes.h"
#include "input.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

const std::vector<Column> kColumns = {{"ID", "id"},
                                      {"NAME", "name"},
                                      {"TOKEN", "prefix"},
                                      {"ROLE", "role"},
                                      {"SCOPES", "scopes"},
                                      {"EXPIRES", "expires_at"},
                                      {"USED", "last_used_at"},
                                      {"CREATED", "created_at", true}};

int ls(Session& s) {
  print(s.output,
        s.client.list("/v1/api-keys", number("limit", s.arguments.value("limit", "1000"), 0)),
        kColumns, "id");
  return 0;
}

int create(Session& s) {
  bj::object body{{"name", s.arguments.required("name")}};
  if (s.arguments.has("role")) body["role"] = s.arguments.value("role");
  if (s.arguments.has("expires-in")) body["expires_in"] = s.arguments.value("expires-in");
  if (s.arguments.has("scope")) {
    bj::array scopes;
    for (const std::string& scope : s.arguments.values("scope")) scopes.emplace_back(scope);
    body["scopes"] = std::move(scopes);
  }
  print(s.output, s.client.post("/v1/api-keys", body), {{"TOKEN", "secret"}, {"ID", "id", true}},
        "id");
  if (s.output.is_table())
    std::fputs("It is shown only now; FLOCK_TOKEN or flock login --with-token takes it.\n", stderr);
  return 0;
}

int rm(Session& s) {
  const std::string id = s.arguments.word(0, "a token's id");
  confirm(s, "Revoke the token " + id + "? Whoever uses it is signed out at once.");
  s.client.send("DELETE", "/v1/api-keys/" + url_encode(id), "");
  std::fprintf(stderr, "Token %s is revoked.\n", printable(id).c_str());
  return 0;
}

}  // namespace

Command tokens_command() {
  return {
      .name = "tokens",
      .singular = "token",
      .summary = "API keys for programs",
      .verbs = {{.name = "ls", .usage = "[--limit N]", .flags = list_flags(), .run = ls},
                {.name = "create",
                 .usage = "--name NAME [--role ROLE] [--scope SCOPE] [--expires-in 720h]",
                 .summary = "prints the token, once",
                 .flags = {{"name", "NAME", "what it is for"},
                           {"role", "ROLE", "owner, admin, developer or viewer", 0, Kind::kRole},
                           {"scope", "SCOPE", "only this, such as devices:read; may repeat"},
                           {"expires-in", "DURATION", "such as 720h; default: never"}},
                 .run = create},
                {.name = "rm",
                 .usage = "ID [--yes]",
                 .words = {Kind::kToken},
                 .flags = {yes_flag()},
                 .run = rm}},
      .examples = {"flock tokens create --name ci --role developer --expires-in 720h -o json"}};
}

}  // namespace flock::cli

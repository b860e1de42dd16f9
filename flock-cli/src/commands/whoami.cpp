// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>

#include "command.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

int whoami(Session& s) {
  bj::value who = s.client.get("/v1/whoami");
  if (s.output.is_table() || s.output.format == Format::kCsv) {
    // What the server cannot know; the machine forms are the API's answer and nothing else.
    bj::object& item = who.as_object();
    item["server"] = s.client.settings().server.value;
    if (!item.contains("expires_at"))
      item["expires_at"] = s.client.settings().credential.expires_at;
    std::string scopes;
    if (const bj::value* list = item.if_contains("scopes"); list && list->is_array()) {
      for (const bj::value& scope : list->get_array())
        scopes += (scopes.empty() ? "" : ",") + value_at(scope, "");
    }
    item["scopes"] = scopes;
    const std::string email = value_at(who, "email");
    if (!email.empty()) item["name"] = email;
  }
  print(s.output, who,
        {{"KIND", "kind"},
         {"WHO", "name"},
         {"ORGANIZATION", "organization.name"},
         {"ROLE", "role"},
         {"SCOPES", "scopes"},
         {"SERVER", "server"},
         {"EXPIRES", "expires_at"},
         {"ID", "id", true}},
        "id");
  return 0;
}

}  // namespace

Command whoami_command() {
  return {.name = "whoami",
          .summary = "show who is signed in, where, and as what",
          .verbs = {{.run = whoami}},
          .examples = {"flock whoami -o json"}};
}

}  // namespace flock::cli

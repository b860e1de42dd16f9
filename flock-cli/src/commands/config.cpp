// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>
#include <cstdio>

#include "command.h"
#include "contexts.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

Context& current_context(Session& s, Config& config) {
  const std::string& name = s.client.settings().context.value;
  const auto found = config.contexts.find(name);
  if (found == config.contexts.end())
    throw Error(Code::kNotFound, "no context is configured").hint("flock login --server URL");
  return found->second;
}

int ls(Session& s) {
  Config config = load_config();
  Context& context = current_context(s, config);
  bj::array items;
  for (const char* key : kContextKeys)
    items.push_back(bj::object{{"key", key}, {"value", field(context, key)}});
  print(s.output, bj::object{{"items", std::move(items)}}, {{"KEY", "key"}, {"VALUE", "value"}},
        "key");
  return 0;
}

int get(Session& s) {
  const std::string key = s.arguments.word(0, "a key");
  Config config = load_config();
  std::puts(printable(field(current_context(s, config), key)).c_str());
  return 0;
}

int set(Session& s) {
  const std::string key = s.arguments.word(0, "a key"),
                    value = s.arguments.word(1, "a value; \"\" takes it away");
  Config config = load_config();
  Context& context = current_context(s, config);
  std::string& place = field(context, key);
  if (key == "server" && value != place)
    throw Error(Code::kInvalidArgument, "a context keeps its server: its credential is for it")
        .hint("flock login --server URL --context NAME makes another context");
  place = value;
  save_config(config);
  return 0;
}

int explain(Session& s) {
  const Settings& now = s.client.settings();
  bj::array items;
  const auto add = [&](const char* key, const std::string& value, const std::string& origin) {
    items.push_back(bj::object{{"key", key}, {"value", value}, {"from", origin}});
  };
  add("context", now.context.value, now.context.origin);
  add("server", now.server.value, now.server.origin);
  add("organization", now.organization.value, now.organization.origin);
  add("fleet", now.fleet.value, now.fleet.origin);
  add("ca_file", now.ca_file.value, now.ca_file.origin);
  add("credential",
      now.credential.access_token.empty() ? ""
      : now.credential.oidc               ? "oidc ****"
                                          : "token ****",
      now.credential_origin);
  print(s.output, bj::object{{"items", std::move(items)}},
        {{"KEY", "key"}, {"VALUE", "value"}, {"FROM", "from"}}, "key");
  return 0;
}

}  // namespace

Command config_command() {
  return {.name = "config",
          .summary = "what the context in use says, and where each value comes from",
          .verbs = {{.name = "ls", .run = ls},
                    {.name = "get", .usage = "KEY", .words = {Kind::kText}, .run = get},
                    {.name = "set",
                     .usage = "KEY VALUE",
                     .summary = "organization, fleet or ca_file",
                     .words = {Kind::kText, Kind::kText},
                     .run = set},
                    {.name = "explain",
                     .summary = "every value in effect: flag, environment, flock.toml or context",
                     .run = explain}},
          .examples = {"flock config set fleet oslo-gateways", "flock config explain"}};
}

}  // namespace flock::cli

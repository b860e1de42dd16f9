// SPDX-License-Identifier: Apache-2.0
#include "contexts.h"

#include <boost/json.hpp>
#include <cstdio>

#include "input.h"
#include "parse.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

const std::vector<Column> kColumns = {{"CONTEXT", "name"},         {"CURRENT", "current"},
                                      {"SERVER", "server"},        {"ORGANIZATION", "organization"},
                                      {"FLEET", "fleet"},          {"SIGNED IN", "credential"},
                                      {"CA FILE", "ca_file", true}};

bj::object context_json(const Config& config, const Credentials& credentials,
                        const std::string& name) {
  const Context& context = config.contexts.at(name);
  const auto own = credentials.find(name);
  return {{"name", name},
          {"current", name == config.current ? "*" : ""},
          {"server", context.server},
          {"ca_file", context.ca_file},
          {"organization", context.organization},
          {"fleet", context.fleet},
          {"credential", own == credentials.end() ? "no"
                         : own->second.oidc       ? "oidc"
                                                  : "api_key"}};
}

void require(const Config& config, const std::string& name) {
  if (config.contexts.contains(name)) return;
  std::vector<std::string> names;
  for (const auto& [known, item] : config.contexts) names.push_back(known);
  const std::string meant = nearest(name, names);
  throw Error(Code::kNotFound, "there is no context `" + name + "`")
      .hint(meant.empty() ? "flock contexts" : "flock contexts use " + meant);
}

int ls(Session& s) {
  const Config config = load_config();
  const Credentials credentials = load_credentials();
  bj::array items;
  for (const auto& [name, context] : config.contexts)
    items.push_back(context_json(config, credentials, name));
  print(s.output, bj::object{{"items", std::move(items)}}, kColumns, "name");
  return 0;
}

int show(Session& s) {
  const Config config = load_config();
  const std::string name =
      s.arguments.words.empty() ? s.client.settings().context.value : s.arguments.words[0];
  require(config, name);
  print(s.output, context_json(config, load_credentials(), name), kColumns, "name");
  return 0;
}

int use(Session& s) {
  const std::string name = s.arguments.word(0, "a context");
  Config config = load_config();
  require(config, name);
  config.current = name;
  save_config(config);
  std::fprintf(stderr, "Commands go to %s now.\n",
               printable(config.contexts.at(name).server).c_str());
  return 0;
}

int rm(Session& s) {
  const std::string name = s.arguments.word(0, "a context");
  Config config = load_config();
  require(config, name);
  confirm(s, "Remove the context " + name + " and its credential?");
  config.contexts.erase(name);
  if (config.current == name) config.current = "";
  change_credentials([&](Credentials& all) { all.erase(name); });
  save_config(config);
  std::fprintf(stderr, "Context %s is removed.\n", printable(name).c_str());
  return 0;
}

}  // namespace

Command contexts_command() {
  return {.name = "contexts",
          .singular = "context",
          .summary = "the servers you use, each with organization and default fleet",
          .verbs = {{.name = "ls", .run = ls},
                    {.name = "use",
                     .usage = "NAME",
                     .summary = "make it the one commands go to",
                     .words = {Kind::kContext},
                     .run = use},
                    {.name = "show", .usage = "[NAME]", .words = {Kind::kContext}, .run = show},
                    {.name = "rm",
                     .usage = "NAME [--yes]",
                     .words = {Kind::kContext},
                     .flags = {yes_flag()},
                     .run = rm}},
          .examples = {"flock login --server https://test.example --context test",
                       "flock contexts use test", "flock devices --context default"}};
}

}  // namespace flock::cli

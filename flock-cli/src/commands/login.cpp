// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>
#include <cstdio>

#include "input.h"
#include "oidc.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

std::string first_of(std::string a, const std::string& b) { return a.empty() ? b : a; }

int login(Session& s) {
  Settings settings = s.client.settings();
  settings.credential = {};
  settings.stored = false;
  if (s.arguments.has("with-token")) {
    settings.credential.access_token = Secret(trimmed(read_input("-", 64 * 1024)));
  } else {
    const auto config = auth_config(settings);
    if (!config)
      throw Error(Code::kInvalidArgument, "this server has no sign-in by browser")
          .with("server", settings.server.value)
          .hint("flock login --with-token < token-file");
    settings.credential = device_login(settings, *config);
  }
  const bj::value who = Client(settings).get("/v1/whoami");
  const std::string context = store_settings(settings);
  const std::string role = value_at(who, "role");
  std::fprintf(stderr, "Signed in to %s as %s of %s%s (context %s).\n",
               settings.server.value.c_str(),
               printable(first_of(value_at(who, "email"), value_at(who, "name"))).c_str(),
               printable(value_at(who, "organization.name")).c_str(),
               (role.empty() ? "" : ", " + printable(role)).c_str(), printable(context).c_str());
  return 0;
}

}  // namespace

Command login_command() {
  return {.name = "login",
          .summary = "sign in to a server",
          .verbs = {{.usage = "[--server URL] [--context NAME] [--with-token]",
                     .summary = "in a browser, anywhere: a code and a URL are printed",
                     .flags = {{"with-token", "", "read an API key from standard input"},
                               {"no-browser", "", "only print the URL, as is done anyway"}},
                     .run = login}},
          .examples = {"flock login --server https://flock.example",
                       "flock login --server https://flock.example --with-token <token-file"}};
}

}  // namespace flock::cli

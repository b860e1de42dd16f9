// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>

#include "input.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

// The key never stands on the command line, where `ps` would show it.
int setup(Session& s) {
  const char* variable = std::getenv("FLOCK_SETUP_KEY");
  const std::string key = s.arguments.has("setup-key-file")
                              ? trimmed(read_input(s.arguments.value("setup-key-file")))
                          : variable ? variable
                                     : "";
  if (key.empty())
    throw Error(Code::kInvalidArgument, "missing: the setup key")
        .hint("flock setup --server URL --setup-key-file FILE (- for standard input)");
  const bj::value answer = s.client.post(
      "/v1/setup",
      bj::object{{"setup_key", key},
                 {"organization", s.arguments.value("organization", "My organization")}});
  Settings settings = s.client.settings();
  settings.credential = {};
  settings.credential.access_token = Secret(value_at(answer, "api_key.secret"));
  store_settings(settings);
  std::fprintf(
      stderr,
      "Organization %s is set up on %s; you are signed in.\nNext:  flock fleets create NAME\n",
      printable(value_at(answer, "organization.name")).c_str(), settings.server.value.c_str());
  return 0;
}

}  // namespace

Command setup_command() {
  return {.name = "setup",
          .summary = "make the first organization with the server's one-time setup key",
          .verbs = {{.usage = "--server URL --setup-key-file FILE [--organization NAME]",
                     .flags = {{"setup-key-file", "FILE",
                                "the key flock-api printed at its first start; - reads it", 0,
                                Kind::kFile},
                               {"organization", "NAME", "how the organization is called"}},
                     .run = setup}},
          .examples = {"flock setup --server https://flock.example --setup-key-file setup-key"}};
}

}  // namespace flock::cli

// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "command.h"
#include "oidc.h"

namespace flock::cli {
namespace {

int logout(Session& s) {
  const Settings& settings = s.client.settings();
  const std::string& name = settings.context.value;
  const Credentials all = load_credentials();
  const auto own = all.find(name);
  if (own == all.end()) {
    std::fputs("You are not signed in here.\n", stderr);
    return 0;
  }
  const bool revoked = revoke(settings, own->second);
  change_credentials([&](Credentials& stored) { stored.erase(name); });
  std::fprintf(stderr, "Signed out of %s.\n", printable(name).c_str());
  if (!own->second.oidc)
    std::fputs("The API key stays valid: flock tokens rm ID ends it.\n", stderr);
  else if (!revoked)
    std::fputs("The identity provider did not revoke the tokens; they end by themselves.\n",
               stderr);
  return 0;
}

}  // namespace

Command logout_command() {
  return {.name = "logout",
          .summary = "forget the credential of this context, and revoke it where that is possible",
          .verbs = {{.usage = "[--context NAME]", .run = logout}},
          .examples = {"flock logout", "flock logout --context test"}};
}

}  // namespace flock::cli

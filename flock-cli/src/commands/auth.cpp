// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "command.h"

namespace flock::cli {
namespace {

int token(Session& s) {
  const Secret& secret = s.client.token();
  if (secret.empty())
    throw Error(Code::kUnauthenticated, "you are not signed in").hint("flock login");
  std::puts(secret.reveal().c_str());
  return 0;
}

}  // namespace

Command auth_command() {
  return {.name = "auth",
          .summary = "print the token in use, for other programs",
          .verbs = {{.name = "token", .run = token}},
          .examples = {"docker login registry.example -u flock --password \"$(flock auth token)\""},
          .needs_verb = true};
}

}  // namespace flock::cli

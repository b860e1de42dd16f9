// SPDX-License-Identifier: Apache-2.0
// The commands in the order of `flock help`: one line each, and a file of that name beside this one
// that defines NAME_command().
#include "command.h"

#define FLOCK_COMMANDS(COMMAND) \
  COMMAND(setup)                \
  COMMAND(login)                \
  COMMAND(logout)               \
  COMMAND(whoami)               \
  COMMAND(auth)                 \
  COMMAND(contexts)             \
  COMMAND(config)               \
  COMMAND(orgs)                 \
  COMMAND(members)              \
  COMMAND(tokens)               \
  COMMAND(fleets)               \
  COMMAND(keys)                 \
  COMMAND(device_requests)      \
  COMMAND(devices)              \
  COMMAND(logs)                 \
  COMMAND(operations)           \
  COMMAND(releases)             \
  COMMAND(deploy)               \
  COMMAND(rollouts)             \
  COMMAND(env)                  \
  COMMAND(subscriptions)        \
  COMMAND(audit)                \
  COMMAND(api)                  \
  COMMAND(doctor)               \
  COMMAND(completion)

namespace flock::cli {

#define FLOCK_DECLARE(NAME) Command NAME##_command();
FLOCK_COMMANDS(FLOCK_DECLARE)
#undef FLOCK_DECLARE

const std::vector<Command>& commands() {
#define FLOCK_LIST(NAME) NAME##_command(),
  static const std::vector<Command> table = {FLOCK_COMMANDS(FLOCK_LIST)};
#undef FLOCK_LIST
  return table;
}

}  // namespace flock::cli

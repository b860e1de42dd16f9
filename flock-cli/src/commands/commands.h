// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "client.h"
#include "output.h"

namespace flock::cli {

// A command line taken apart: words, then --flags with their values ("" for a switch).
struct Arguments {
  std::vector<std::string> words;
  std::map<std::string, std::string> flags;

  bool has(const std::string& flag) const { return flags.contains(flag); }
  std::string value(const std::string& flag, const std::string& fallback = "") const;
  // Throws Error{kInvalidArgument} naming `what`.
  std::string word(std::size_t index, const std::string& what) const;
  std::string required(const std::string& flag) const;
  // Throws for a word beyond the `count` that the command reads.
  void at_most(std::size_t count) const;
  std::string usage() const;  // where to read about this command
};

struct Session {
  Client client;
  Output output;
  Arguments arguments;
};

// Each returns the exit code.
int run_setup(Session& session);
int run_login(Session& session);
int run_whoami(Session& session);
int run_auth(Session& session);
int run_fleets(Session& session);
int run_keys(Session& session);
int run_devices(Session& session);
int run_releases(Session& session);
int run_deploy(Session& session);
int run_rollouts(Session& session);
int run_audit(Session& session);
int run_api(Session& session);

// Follows a rollout to its end: 0 completed, 9 failed.
int watch_rollout(Session& session, const std::string& id);
// "-" is standard input.
std::string read_input(const std::string& path, std::size_t limit = 1 << 20);
// Asks on a terminal before something is lost, unless --yes; throws when the answer is no.
void confirm(const Session& session, const std::string& question);
[[noreturn]] void unknown_verb(const std::string& noun, const std::string& verb,
                               const std::string& verbs);

}  // namespace flock::cli

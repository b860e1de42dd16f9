// SPDX-License-Identifier: Apache-2.0
// What is kept between calls: config.toml (servers and what to do there) and credentials.json
// (0600) in $FLOCK_CONFIG_HOME, $XDG_CONFIG_HOME/flock or ~/.config/flock.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "base/secret.h"

namespace flock::cli {

std::string config_folder();

// One server and how it is used.
struct Context {
  std::string server, ca_file, organization, fleet;
};
struct Config {
  std::string current;  // a name in `contexts`, or "" when nothing is configured
  std::map<std::string, Context> contexts;
};
// The keys of a context, in the order of the file.
inline constexpr const char* kContextKeys[] = {"server", "ca_file", "organization", "fleet"};
std::string& field(Context& context, const std::string& key);

// The files of before contexts (config.json) become the context `default` once. Throws
// Error{kInvalidArgument} naming file and line.
Config load_config();
void save_config(const Config& config);

struct Credential {
  bool oidc = false;     // else an API key
  Secret access_token;   // or the API key
  Secret refresh_token;  // OpenID Connect, the rest too
  std::string expires_at, token_endpoint, revocation_endpoint, client_id, resource;
};
using Credentials = std::map<std::string, Credential>;  // by context
// A file that others can read is tightened, with a warning on standard error.
Credentials load_credentials();
// Reads, changes and writes while no other process does.
void change_credentials(const std::function<void(Credentials&)>& change);

}  // namespace flock::cli

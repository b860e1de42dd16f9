// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/secret.h"

namespace flock::cli {

// Where commands go and as whom. Flag, then environment (FLOCK_SERVER, FLOCK_TOKEN, FLOCK_CA_FILE),
// then what `flock setup` or `flock login` stored in $FLOCK_CONFIG_HOME or $XDG_CONFIG_HOME/flock.
struct Settings {
  std::string server, ca_file;
  Secret token;
  bool debug = false;  // print requests on standard error
};
Settings load_settings(const std::string& server_flag);
// The server goes to config.json, the token to credentials.json (0600).
void store_settings(const Settings& settings);

}  // namespace flock::cli

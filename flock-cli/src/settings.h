// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/time.h"
#include "contexts.h"

namespace flock::cli {

// One value and where it came from, for `flock config explain`.
struct Setting {
  std::string value;
  std::string origin = "not set";
};

// Where commands go, as whom, and for which organization. Each is the first of: flag, environment,
// project file (flock.toml upward of the working folder), context, default.
struct Settings {
  Setting context, server, ca_file, organization, fleet;
  Credential credential;
  std::string credential_origin = "not set";
  bool stored = false;  // the credential is the context's own and may be refreshed
  bool debug = false;   // print requests on standard error
  Duration request_time = Duration(90'000);
};

struct Given {  // by flags; "" for none
  std::string context, server, organization, fleet;
};
// A stored credential goes only to the server of its own context. A context named by flag,
// environment or project file must exist unless `may_be_new`.
Settings load_settings(const Given& given, bool may_be_new = false);

// Keeps server, organization and credential, and makes their context the current one. Returns the
// context's name: the given one, or the one with this server, or a new one.
std::string store_settings(const Settings& settings);

}  // namespace flock::cli

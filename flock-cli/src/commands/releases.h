// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/json/fwd.hpp>

#include "command.h"

namespace flock::cli {

// Makes a release of --file, with --version and --note; prints the server's remarks on stderr.
boost::json::value create_release(Session& session);
// The flags it reads.
std::vector<Flag> release_flags();
// Follows a rollout to its end: 0 completed, 9 failed.
int watch_rollout(Session& session, const std::string& id);

}  // namespace flock::cli

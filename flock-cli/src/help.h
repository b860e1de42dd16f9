// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/json/fwd.hpp>
#include <string>

#include "command.h"

namespace flock::cli {

inline constexpr const char* kVersion = "0.1.0";

// `flock help`, `flock help COMMAND`, `flock help --json`.
std::string overview();
std::string help_for(const Command& command);
boost::json::value command_tree();
// exit-codes, environment, formatting; null when there is no such topic.
const char* help_topic(const std::string& name);

}  // namespace flock::cli

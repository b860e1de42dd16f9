// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace flock::cli {

// `flock __complete WORD... CURRENT`: candidates for the last word, one a line, "value<TAB>what it
// is". Never an error: a completion that fails is an empty one.
int complete(const std::vector<std::string>& words);
// The script for a shell; throws Error{kInvalidArgument} for one that is not known.
std::string completion_script(const std::string& shell);

}  // namespace flock::cli

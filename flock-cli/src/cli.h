// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace flock::cli {

// One command line, without the program's name; returns the exit code.
int run(const std::vector<std::string>& arguments);

}  // namespace flock::cli

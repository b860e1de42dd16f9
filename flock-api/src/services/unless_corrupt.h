// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "async/task.h"

namespace flock::services {

// Runs `work` and logs an Error{kCorrupt}: what cannot be opened must not stand in the way of all
// that comes after it.
Task<void> unless_corrupt(const char* what, std::string id, Task<void> work);

}  // namespace flock::services

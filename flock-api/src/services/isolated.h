// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "async/task.h"

namespace flock::services {

// Runs `work` and logs an Error{kCorrupt} (what is stored cannot be read) or Error{kInternal} (the
// database refuses a statement): what is wrong with one must not stand in the way of all that come
// after it. Errors that all would meet are thrown.
Task<void> isolated(const char* what, std::string id, Task<void> work);

}  // namespace flock::services

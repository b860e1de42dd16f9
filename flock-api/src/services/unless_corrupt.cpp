// SPDX-License-Identifier: Apache-2.0
#include "services/unless_corrupt.h"

#include "base/error.h"
#include "base/log.h"

namespace flock::services {

Task<void> unless_corrupt(const char* what, std::string id, Task<void> work) {
  try {
    co_await std::move(work);
  } catch (const Error& error) {
    if (error.code() != Code::kCorrupt) throw;
    log::error("something stored cannot be read; it is tried again", error,
               {{"what", what}, {"id", id}});
  }
}

}  // namespace flock::services

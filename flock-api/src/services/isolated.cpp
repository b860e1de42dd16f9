// SPDX-License-Identifier: Apache-2.0
#include "services/isolated.h"

#include "base/error.h"
#include "base/log.h"
#include "stores/postgres/database.h"

namespace flock::services {

Task<void> isolated(const char* what, std::string id, Task<void> work) {
  try {
    co_await std::move(work);
  } catch (const Error& error) {
    const bool alone = error.code() == Code::kCorrupt || error.code() == Code::kInternal;
    if (!alone || postgres::deposed(error)) throw;
    log::error("one of many could not be dealt with; it is tried again", error,
               {{"what", what}, {"id", id}});
  }
}

}  // namespace flock::services

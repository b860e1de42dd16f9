// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "stores/postgres/database.h"

namespace flock::postgres {

// One that was put together; what callers wrote is in its parameters.
struct Statement {
  std::string text;
  Params params;
};

}  // namespace flock::postgres

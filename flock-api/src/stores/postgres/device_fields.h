// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "domain/filter.h"

namespace flock::postgres {

// What devices can be filtered and sorted by.
const domain::FieldTable& device_fields();

}  // namespace flock::postgres

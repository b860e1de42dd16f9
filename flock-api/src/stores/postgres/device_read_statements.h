// SPDX-License-Identifier: Apache-2.0
// Devices by their ids, several at once.
#pragma once

#include "stores/postgres/device_statements.h"

namespace flock::postgres::sql {

// Those that are there, in no order.
inline constexpr const char* kDevicesGet =
    FLOCK_DEVICE_COLUMNS " FROM devices d" FLOCK_DEVICE_JOINS
                         "WHERE d.org_id = $1 AND d.removed_at IS NULL AND d.id = ANY($2::uuid[])";

}  // namespace flock::postgres::sql

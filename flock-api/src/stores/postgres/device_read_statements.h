// SPDX-License-Identifier: Apache-2.0
// Devices by their ids, several at once.
#pragma once

#include "stores/postgres/device_statements.h"

namespace flock::postgres::sql {

// Those that are there, in no order. `xmin` names the transaction that wrote a row: it is another
// one after every change. A release that a device wants keeps its name.
inline constexpr const char* kDevicesGet = FLOCK_DEVICE_COLUMNS
    ", d.xmin AS row_version, f.xmin AS fleet_version FROM devices d" FLOCK_DEVICE_JOINS
    "WHERE d.org_id = $1 AND d.removed_at IS NULL AND d.id = ANY($2::uuid[])";
// The versions of devices $2 and of fleets $3: those that are there and seen.
inline constexpr const char* kDeviceVersions =
    "SELECT d.id, d.xmin AS version FROM devices d WHERE d.org_id = $1 AND d.removed_at IS NULL "
    "AND d.id = ANY($2::uuid[]) UNION ALL SELECT f.id, f.xmin FROM fleets f WHERE f.org_id = $1 "
    "AND f.id = ANY($3::uuid[])";

}  // namespace flock::postgres::sql

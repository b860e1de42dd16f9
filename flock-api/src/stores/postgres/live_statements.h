// SPDX-License-Identifier: Apache-2.0
// Statements of live data: whose an event is, and what a device was told to do.
#pragma once

namespace flock::postgres::sql {

// Removed devices too: their last event belongs to those who saw them.
inline constexpr const char* kEventDevices =
    "SELECT id, name, coalesce(fleet_id, removed_from_fleet_id) AS fleet_id FROM devices WHERE id "
    "= ANY($1::uuid[])";
inline constexpr const char* kEventRollouts =
    "SELECT id, fleet_id, '' AS name FROM rollouts WHERE id = ANY($1::uuid[])";
inline constexpr const char* kDeviceNames =
    "SELECT id, name FROM devices WHERE org_id = $1 AND id = ANY($2::uuid[])";

}  // namespace flock::postgres::sql

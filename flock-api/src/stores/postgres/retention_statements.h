// SPDX-License-Identifier: Apache-2.0
// Statements about how long time series are kept.
#pragma once

namespace flock::postgres::sql {

inline constexpr const char* kRetentionOfAll =
    "SELECT id, telemetry_retention_days, logs_retention_days FROM organizations";
// $2, $3: days; 0: as configured; NULL: as it was.
inline constexpr const char* kRetentionSet =
    "UPDATE organizations SET"
    " telemetry_retention_days ="
    " CASE WHEN $2::int IS NULL THEN telemetry_retention_days ELSE nullif($2::int, 0) END,"
    " logs_retention_days ="
    " CASE WHEN $3::int IS NULL THEN logs_retention_days ELSE nullif($3::int, 0) END"
    " WHERE id = $1";

}  // namespace flock::postgres::sql

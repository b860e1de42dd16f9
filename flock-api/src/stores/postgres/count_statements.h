// SPDX-License-Identifier: Apache-2.0
// What the scheduler's leader counts for /metrics, over all organizations.
#pragma once

namespace flock::postgres::sql {

inline constexpr const char* kDeviceCounts =
    "SELECT count(*) FILTER (WHERE online) AS online, count(*) FILTER (WHERE NOT online) AS "
    "offline FROM devices WHERE revoked_at IS NULL";
inline constexpr const char* kRolloutCounts =
    "SELECT state, count(*) AS count FROM rollouts GROUP BY state";

}  // namespace flock::postgres::sql

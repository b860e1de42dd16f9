// SPDX-License-Identifier: Apache-2.0
// Which devices deployments are for, beside the statements that selection_query.h puts together:
// other rollouts that want the same ones, and deployments that stand for whoever comes.
#pragma once

namespace flock::postgres::sql {

// A device's part in a rollout that is open for it.
#define FLOCK_PART_IS_OPEN                                                                \
  "x.state IN ('WAITING', 'PENDING', 'DELIVERED', 'DOWNLOADING', 'STARTING', 'SOAKING', " \
  "'CONFIRMED', 'ROLLING_BACK')"

inline constexpr const char* kOpenRollouts =
    "SELECT r.id, r.deployment_id, r.state, p.priority, l.version AS release_version FROM rollouts "
    "r JOIN deployments p ON p.org_id = r.org_id AND p.id = r.deployment_id LEFT JOIN releases l "
    "ON "
    "l.org_id = r.org_id AND l.id = r.release_id WHERE r.org_id = $1 AND r.ended_at IS NULL ORDER "
    "BY r.id";
// A key that no device of the organization has.
inline constexpr const char* kUnknownLabels =
    "SELECT k.key FROM unnest($2::text[]) AS k(key) WHERE NOT EXISTS (SELECT FROM device_labels l "
    "WHERE l.org_id = $1 AND l.key = k.key) ORDER BY k.key";
inline constexpr const char* kUnknownAttributes =
    "SELECT k.key FROM unnest($2::text[]) AS k(key) WHERE NOT EXISTS (SELECT FROM devices d WHERE "
    "d.org_id = $1 AND d.removed_at IS NULL AND d.attributes ? k.key) ORDER BY k.key";
// The keys that there are, each found by one look into the index; at most 200.
inline constexpr const char* kKnownLabels =
    "WITH RECURSIVE k(key) AS ((SELECT l.key FROM device_labels l WHERE l.org_id = $1 ORDER BY "
    "l.key LIMIT 1) UNION ALL SELECT (SELECT l.key FROM device_labels l WHERE l.org_id = $1 AND "
    "l.key > k.key ORDER BY l.key LIMIT 1) FROM k WHERE k.key IS NOT NULL) SELECT key FROM k WHERE "
    "key IS NOT NULL LIMIT 200";

// --- Deployments that stand: whoever comes to match gets their release
inline constexpr const char* kDeploymentStands =
    "UPDATE deployments SET stands = true WHERE org_id = $1 AND id = $2";
// Older ones that were for no more than this one is, and have no more weight.
inline constexpr const char* kDeploymentDisplaces =
    "UPDATE deployments o SET displaced_by = p.id FROM deployments p WHERE p.org_id = $1 AND p.id "
    "= $2 AND o.org_id = p.org_id AND o.stands AND o.displaced_by IS NULL AND o.id < p.id AND "
    "o.priority <= p.priority AND (p.fleet_id IS NULL OR o.fleet_id = p.fleet_id) AND (p.filter = "
    "'' OR o.filter = p.filter) AND (p.device_ids IS NULL OR o.device_ids <@ p.device_ids)";
inline constexpr const char* kDeploymentFalls =
    "UPDATE deployments SET stands = stands AND id <> $2, displaced_by = NULLIF(displaced_by, $2) "
    "WHERE org_id = $1 AND (id = $2 OR displaced_by = $2)";
// Those with more weight first. A release that failed, or was found invalid, goes to nobody.
inline constexpr const char* kStandingDeployments =
    "SELECT p.id, p.fleet_id, array_to_string(p.device_ids, ',') AS device_ids, p.filter, "
    "p.membership, p.priority, p.on_conflict, p.rollout_id FROM deployments p JOIN rollouts r ON "
    "r.org_id = p.org_id AND r.id = p.rollout_id JOIN releases l ON l.org_id = p.org_id AND l.id = "
    "p.release_id WHERE p.org_id = $1 AND p.stands AND p.displaced_by IS NULL AND l.state <> "
    "'INVALID' AND (r.ended_at IS NULL OR r.state IN ('COMPLETED', 'SUPERSEDED')) ORDER BY "
    "p.priority DESC, p.id DESC";
inline constexpr const char* kChangedDevices =
    "SELECT id, org_id FROM devices WHERE selection_stale ORDER BY id LIMIT $1::bigint FOR NO KEY "
    "UPDATE SKIP LOCKED";
inline constexpr const char* kDevicesSelected =
    "UPDATE devices SET selection_stale = false WHERE id = ANY($1::uuid[])";

}  // namespace flock::postgres::sql

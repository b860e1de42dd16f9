// SPDX-License-Identifier: Apache-2.0
// Deployments, rollouts, and the part of each device in them. What concerns many devices is one
// statement, however many there are.
#pragma once

namespace flock::postgres::sql {

// --- Deployments: what is to be done
inline constexpr const char* kDeploymentInsert =
    "INSERT INTO deployments(id, org_id, release_id, fleet_id, device_ids, filter, membership, "
    "priority, on_conflict, soak_ms, failure_timeout_ms, max_failed_ratio, strategy, created_by) "
    "VALUES ($1, $2, $3, $4::uuid, $5::uuid[], $6, $7, $8::integer, $9, $10::bigint, $11::bigint, "
    "$12::double precision, $13::jsonb, $14)";
#define FLOCK_DEPLOYMENT_COLUMNS                                                                 \
  "SELECT p.id, p.org_id, p.fleet_id, array_to_string(p.device_ids, ',') AS device_ids, "        \
  "p.filter, p.membership, p.priority, p.on_conflict, "                                          \
  "p.soak_ms, p.failure_timeout_ms, p.max_failed_ratio, p.strategy, p.created_by,"               \
  " p.state, p.rollout_id, flock_ms(p.created_at) AS created_at, r.id AS release_id, r.version " \
  "AS release_version, r.workload FROM deployments p JOIN releases r ON r.id = p.release_id "
inline constexpr const char* kDeploymentGet =
    FLOCK_DEPLOYMENT_COLUMNS "WHERE p.org_id = $1 AND p.id = $2";
inline constexpr const char* kDeploymentList = FLOCK_DEPLOYMENT_COLUMNS
    "WHERE p.org_id = $1 AND ($2 = '' OR p.id::text < $2) ORDER BY p.id::text DESC LIMIT "
    "$3::bigint";
inline constexpr const char* kDeploymentsPending =
    FLOCK_DEPLOYMENT_COLUMNS "WHERE p.state = 'PENDING' ORDER BY p.id LIMIT 20";
inline constexpr const char* kDeploymentOfRollout =
    FLOCK_DEPLOYMENT_COLUMNS "WHERE p.org_id = $1 AND p.rollout_id = $2";
inline constexpr const char* kDevicesCount =
    "SELECT count(*) AS count FROM devices WHERE org_id = $1 AND removed_at IS NULL AND revoked_at "
    "IS NULL AND id = ANY($2::uuid[]) AND ($3 = '' OR fleet_id = nullif($3, '')::uuid)";
inline constexpr const char* kDeploymentExecuted =
    "UPDATE deployments SET state = 'EXECUTED', rollout_id = $3 WHERE org_id = $1 AND id = $2 AND "
    "state = 'PENDING' RETURNING 1 AS ok";

// --- The beginning of a rollout
inline constexpr const char* kRolloutInsert =
    "INSERT INTO rollouts(id, org_id, deployment_id, release_id, fleet_id, state, stage_ends, "
    "progress) VALUES ($1, $2, $3, $4, $5::uuid, $6, $7::bigint[], $8::jsonb)";
// What an older rollout has not begun on these devices, it shall not begin any more.
inline constexpr const char* kSupersedeWaiting =
    "UPDATE rollout_devices x SET state = 'SUPERSEDED', reason = 'a newer deployment took the "
    "device', updated_at = now() FROM rollout_devices mine, rollouts r WHERE mine.org_id = $1 AND "
    "mine.rollout_id = $2 AND x.org_id = $1 AND x.device_id = mine.device_id AND x.rollout_id <> "
    "mine.rollout_id AND x.state = 'WAITING' AND r.id = x.rollout_id AND r.ended_at IS NULL";
// From the last stage on: newcomers of the fleet get this release. What it was before is kept.
inline constexpr const char* kFleetDeployment =
    "WITH before AS (SELECT deployment_id FROM fleets WHERE org_id = $1 AND id = $2 FOR NO KEY "
    "UPDATE), kept AS (UPDATE rollouts SET previous_deployment_id = (SELECT deployment_id FROM "
    "before) WHERE org_id = $1 AND deployment_id = $3) UPDATE fleets SET deployment_id = $3 WHERE "
    "org_id = $1 AND id = $2";
inline constexpr const char* kFleetRestore =
    "UPDATE fleets f SET deployment_id = r.previous_deployment_id FROM rollouts r WHERE r.org_id = "
    "$1 AND r.id = $2 AND f.org_id = r.org_id AND f.id = r.fleet_id AND f.deployment_id = "
    "r.deployment_id";

// --- A rollout under way
inline constexpr const char* kRolloutsOpen =
    "SELECT id, org_id FROM rollouts WHERE ended_at IS NULL ORDER BY id";
// Whoever decides about it, or orders, has it to himself.
inline constexpr const char* kRolloutLock =
    "SELECT r.id, r.org_id, r.fleet_id, r.deployment_id, r.state, r.reason, r.stage, "
    "array_to_string(r.stage_ends, ',') AS stage_ends, r.progress, r.gates, p.strategy, "
    "p.max_failed_ratio, p.failure_timeout_ms, p.created_by FROM rollouts r JOIN deployments p ON "
    "p.org_id = r.org_id AND p.id = r.deployment_id WHERE r.org_id = $1 AND r.id = $2 FOR UPDATE "
    "OF r";
inline constexpr const char* kRolloutPut =
    "UPDATE rollouts SET state = $3, reason = nullif($4, ''), stage = $5::integer, progress = "
    "$6::jsonb, gates = $7::jsonb, updated_at = now(), ended_at = CASE WHEN $8::boolean THEN "
    "coalesce(ended_at, now()) END WHERE org_id = $1 AND id = $2";
inline constexpr const char* kRolloutDecided =
    "INSERT INTO rollout_decisions(org_id, rollout_id, step, actor, state, stage, devices, why, "
    "seen, told) VALUES ($1, $2, $3, $4, $5, $6::integer, $7::bigint, $8, $9::jsonb, NOT "
    "$10::boolean)";
// In the order in which they were made.
inline constexpr const char* kDecisionsUntold =
    "SELECT id, org_id, rollout_id, step, state, stage, why, flock_ms(at) AS at FROM "
    "rollout_decisions WHERE NOT told ORDER BY id LIMIT 200";
inline constexpr const char* kDecisionTold =
    "UPDATE rollout_decisions SET told = true WHERE org_id = $1 AND id = $2::bigint";
inline constexpr const char* kRolloutDecisions =
    "SELECT id, flock_ms(at) AS at, step, actor, state, stage, devices, why, seen FROM "
    "rollout_decisions WHERE org_id = $1 AND rollout_id = $2 AND ($3::bigint = 0 OR id < "
    "$3::bigint) ORDER BY id DESC LIMIT $4::bigint";
// domain::StageCounts, measured. $3: the open stage.
inline constexpr const char* kStageCounts =
    "SELECT count(*) AS total, count(*) FILTER (WHERE superseded) AS superseded,"
    " count(*) FILTER (WHERE open AND online) AS updating,"
    " count(*) FILTER (WHERE open AND NOT online) AS offline,"
    " count(*) FILTER (WHERE state = 'CONFIRMED') AS confirmed,"
    " count(*) FILTER (WHERE state = 'FAILED') AS failed,"
    " count(*) FILTER (WHERE began_at > now() - interval '1 minute') AS began_lately,"
    " count(*) FILTER (WHERE state = 'WAITING' AND stage <= $3::integer AND online) AS "
    "waiting_online,"
    " count(*) FILTER (WHERE state = 'WAITING' AND stage <= $3::integer AND NOT online) AS "
    "waiting_offline,"
    " count(*) FILTER (WHERE stage = $3::integer AND state IN ('CONFIRMED', 'FAILED')) AS "
    "stage_settled,"
    " count(*) FILTER (WHERE stage = $3::integer AND (open OR state = 'WAITING') AND NOT online) "
    "AS stage_away,"
    " count(*) FILTER (WHERE reached AND online) AS online,"
    " count(*) FILTER (WHERE state = 'CONFIRMED' AND unhealthy) AS unhealthy,"
    " count(*) FILTER (WHERE reached AND restarting) AS restarting,"
    " count(*) FILTER (WHERE state = 'CONFIRMED' AND lately) AS confirmed_lately,"
    " count(*) FILTER (WHERE state = 'FAILED' AND lately) AS failed_lately,"
    " count(*) FILTER (WHERE reached AND wants_it) AS to_return,"
    " count(*) FILTER (WHERE state = 'ROLLING_BACK' AND online) AS returning,"
    " count(*) FILTER (WHERE state = 'ROLLING_BACK' AND NOT online) AS returning_offline,"
    " count(*) FILTER (WHERE state = 'ROLLED_BACK') AS returned,"
    " count(*) FILTER (WHERE state = 'ROLLBACK_FAILED') AS stuck,"
    " min(reason) FILTER (WHERE state = 'FAILED') AS first_failure,"
    " min(reason) FILTER (WHERE state = 'ROLLBACK_FAILED') AS first_stuck"
    " FROM (SELECT x.state, x.stage, x.reason, x.began_at, x.unhealthy, x.restarting, d.online, "
    "x.state = 'SUPERSEDED' AS superseded, x.state IN ('PENDING', 'DELIVERED', 'DOWNLOADING', "
    "'STARTING', 'SOAKING') AS open, x.state IN ('PENDING', 'DELIVERED', 'DOWNLOADING', "
    "'STARTING', 'SOAKING', 'CONFIRMED', 'FAILED') AS reached, x.updated_at > now() - interval "
    "'10 minutes' AS lately, x.desired_version > 0 AND d.desired_rollout_id = x.rollout_id AS "
    "wants_it FROM rollout_devices x JOIN devices d ON d.org_id = x.org_id AND d.id = x.device_id "
    "WHERE x.org_id = $1 AND x.rollout_id = $2) x";
// $4 of the devices that wait begin; with $5 only those that are online. Those that are go first.
inline constexpr const char* kRolloutLetGo =
    "UPDATE rollout_devices x SET state = 'PENDING', began_at = now(), updated_at = now() FROM "
    "(SELECT w.device_id FROM rollout_devices w JOIN devices d ON d.org_id = w.org_id AND d.id = "
    "w.device_id WHERE w.org_id = $1 AND w.rollout_id = $2 AND w.state = 'WAITING' AND w.stage <= "
    "$3::integer AND (d.online OR NOT $5::boolean) ORDER BY d.online DESC, w.place LIMIT "
    "$4::bigint) chosen WHERE x.org_id = $1 AND x.rollout_id = $2 AND x.device_id = "
    "chosen.device_id AND x.state = 'WAITING'";
// Devices that still are to run the release of the rollout get their way back.
inline constexpr const char* kRolloutReturn =
    "UPDATE rollout_devices x SET state = 'ROLLING_BACK', desired_version = 0, updated_at = now() "
    "FROM (SELECT w.device_id FROM rollout_devices w JOIN devices d ON d.org_id = w.org_id AND "
    "d.id = w.device_id WHERE w.org_id = $1 AND w.rollout_id = $2 AND w.desired_version > 0 AND "
    "d.desired_rollout_id = w.rollout_id AND w.state IN ('PENDING', 'DELIVERED', 'DOWNLOADING', "
    "'STARTING', 'SOAKING', 'CONFIRMED', 'FAILED') ORDER BY d.online DESC, w.place LIMIT "
    "$3::bigint) chosen WHERE x.org_id = $1 AND x.rollout_id = $2 AND x.device_id = "
    "chosen.device_id";
// What did not begin never will.
inline constexpr const char* kRolloutSkip =
    "UPDATE rollout_devices SET state = 'SKIPPED', reason = 'the rollout ended before its turn', "
    "updated_at = now() WHERE org_id = $1 AND rollout_id = $2 AND (state = 'WAITING' OR (state = "
    "'PENDING' AND desired_version = 0))";
// Only while a device is there does its time pass: $3 ms since it said something or came.
inline constexpr const char* kRolloutTimeouts =
    "UPDATE rollout_devices x SET state = CASE WHEN x.state = 'ROLLING_BACK' THEN "
    "'ROLLBACK_FAILED' ELSE 'FAILED' END, reason = 'the device did not confirm in time', "
    "updated_at = now() FROM devices d WHERE x.org_id = $1 AND x.rollout_id = $2 AND x.state IN "
    "('DELIVERED', 'DOWNLOADING', 'STARTING', 'SOAKING', 'ROLLING_BACK') AND x.desired_version > 0 "
    "AND x.updated_at < now() - $3::bigint * interval '1 millisecond' AND d.org_id = x.org_id AND "
    "d.id = x.device_id AND d.online AND coalesce(d.turned_at < now() - $3::bigint * interval '1 "
    "millisecond', true)";
inline constexpr const char* kRolloutRevoked =
    "UPDATE rollout_devices x SET state = 'FAILED', reason = 'device_revoked: the device was "
    "revoked', updated_at = now() FROM devices d WHERE x.org_id = $1 AND x.rollout_id = $2 AND "
    "d.org_id = x.org_id AND d.id = x.device_id AND d.revoked_at IS NOT NULL AND x.state IN "
    "('WAITING', 'PENDING', 'DELIVERED', 'DOWNLOADING', 'STARTING', 'SOAKING')";

// --- The part of one device
// Those that have begun, or go back, and have no desired state for it yet.
inline constexpr const char* kRolloutToMake =
    "SELECT x.org_id, x.rollout_id, x.device_id FROM rollout_devices x WHERE x.desired_version = 0 "
    "AND x.state IN ('PENDING', 'ROLLING_BACK') ORDER BY x.began_at LIMIT 500";
// Again inside the transaction, so that a second leader cannot give out the same version.
inline constexpr const char* kRolloutMakeLock =
    "SELECT x.state, d.id, d.architecture, d.variant, d.desired_version, x.previous_release_id, "
    "p.soak_ms, b.version AS back_version, b.workload AS back_workload, b.deleted_at IS NOT NULL "
    "AS back_deleted, l.version AS release_version, l.workload, l.id AS release_id FROM "
    "rollout_devices x JOIN devices d ON d.org_id = x.org_id AND d.id = x.device_id JOIN rollouts "
    "r ON r.org_id = x.org_id AND r.id = x.rollout_id JOIN deployments p ON p.org_id = r.org_id "
    "AND p.id = r.deployment_id JOIN releases l ON l.org_id = r.org_id AND l.id = r.release_id "
    "LEFT "
    "JOIN releases b ON b.org_id = x.org_id AND b.id = x.previous_release_id WHERE x.org_id = $1 "
    "AND x.rollout_id = $2 AND x.device_id = $3 AND x.desired_version = 0 AND x.state IN "
    "('PENDING', 'ROLLING_BACK') AND d.removed_at IS NULL AND d.revoked_at IS NULL FOR UPDATE OF "
    "x, d";
// Before the device wants it: what it wants now is where it goes back to.
inline constexpr const char* kRolloutDeviceMade =
    "UPDATE rollout_devices x SET desired_version = $4::bigint, previous_release_id = CASE WHEN "
    "x.state = 'PENDING' THEN d.desired_release_id ELSE x.previous_release_id END, updated_at = "
    "now() FROM devices d WHERE x.org_id = $1 AND x.rollout_id = $2 AND x.device_id = $3 AND "
    "d.org_id = x.org_id AND d.id = x.device_id";
inline constexpr const char* kRolloutDeviceFailed =
    "UPDATE rollout_devices SET state = CASE WHEN state = 'ROLLING_BACK' THEN 'ROLLBACK_FAILED' "
    "ELSE 'FAILED' END, reason = $4, updated_at = now() WHERE org_id = $1 AND rollout_id = $2 AND "
    "device_id = $3";
// A newcomer begins at once.
inline constexpr const char* kRolloutNewcomer =
    "INSERT INTO rollout_devices(org_id, rollout_id, device_id, state, place, stage, began_at) "
    "SELECT $1, r.id, $3, 'PENDING', 1000000000, r.stage, now() FROM rollouts r WHERE r.org_id = "
    "$1 AND r.id = $2 ON CONFLICT (rollout_id, device_id) DO NOTHING";
inline constexpr const char* kSupersede =
    "UPDATE rollout_devices x SET state = 'SUPERSEDED', reason = 'a newer deployment took the "
    "device', updated_at = now() FROM rollouts r"
    " WHERE x.org_id = $1 AND x.device_id = $2 AND x.rollout_id <> $3 AND r.id = x.rollout_id AND "
    "r.ended_at IS NULL AND x.state NOT IN ('CONFIRMED', 'FAILED', 'SUPERSEDED', 'ROLLED_BACK', "
    "'ROLLBACK_FAILED', 'SKIPPED')";
inline constexpr const char* kDeviceWant =
    "UPDATE devices SET desired_version = $3::bigint, desired_release_id = $4::uuid, "
    "desired_rollout_id = $5, desired = $6::bytea, desired_stale = false WHERE org_id = $1 AND id "
    "= $2";
inline constexpr const char* kUnpublished =
    "SELECT id, org_id, desired_version, desired, desired_rollout_id FROM devices WHERE "
    "published_version < desired_version AND revoked_at IS NULL AND desired IS NOT NULL LIMIT 500";
inline constexpr const char* kPublished =
    "UPDATE devices SET published_version = greatest(published_version, $3::bigint) WHERE org_id = "
    "$1 AND id = $2";
inline constexpr const char* kRepublish =
    "UPDATE devices SET published_version = 0 WHERE org_id = $1 AND id = $2 AND desired_version > "
    "$3::bigint AND published_version = desired_version";
inline constexpr const char* kRolloutDeviceDelivered =
    "UPDATE rollout_devices SET state = CASE WHEN state = 'PENDING' THEN 'DELIVERED' ELSE state "
    "END, updated_at = now() WHERE org_id = $1 AND rollout_id = $2 AND device_id = $3 AND state IN "
    "('PENDING', 'ROLLING_BACK') AND desired_version = $4::bigint";
// What a report says about a device's part, with the state that it has by it ($4), a reason ($5),
// and whether services are unhealthy ($6) or restart ($7). On the way back the same words mean the
// way back. Nothing when it is nothing new.
inline constexpr const char* kRolloutDeviceState =
    "WITH told AS (SELECT x.rollout_id, x.device_id, CASE WHEN x.state IN ('SUPERSEDED', "
    "'SKIPPED', 'ROLLED_BACK') THEN x.state WHEN x.state IN ('ROLLING_BACK', 'ROLLBACK_FAILED') "
    "THEN CASE $4 WHEN 'CONFIRMED' THEN 'ROLLED_BACK' WHEN 'FAILED' THEN 'ROLLBACK_FAILED' ELSE "
    "x.state END WHEN x.state = 'CONFIRMED' OR (x.state = 'FAILED' AND $4 <> 'CONFIRMED') THEN "
    "x.state ELSE $4 END AS state FROM rollout_devices x WHERE x.org_id = $1 AND x.device_id = $2 "
    "AND x.desired_version = $3::bigint AND x.desired_version > 0 FOR UPDATE) UPDATE "
    "rollout_devices x SET state = t.state, reason = CASE WHEN t.state <> x.state OR t.state NOT "
    "IN ('SUPERSEDED', 'SKIPPED', 'ROLLED_BACK', 'ROLLBACK_FAILED', 'ROLLING_BACK', 'CONFIRMED', "
    "'FAILED') THEN nullif($5, '') ELSE x.reason END, unhealthy = $6::boolean, restarting = "
    "$7::boolean, updated_at = CASE WHEN t.state <> x.state OR t.state NOT IN ('CONFIRMED', "
    "'FAILED') THEN now() ELSE x.updated_at END FROM told t WHERE x.org_id = $1 AND x.rollout_id = "
    "t.rollout_id AND x.device_id = t.device_id AND ((x.state, x.unhealthy, x.restarting) <> "
    "(t.state, $6::boolean, $7::boolean) OR (t.state NOT IN ('SUPERSEDED', 'SKIPPED', "
    "'ROLLED_BACK', 'ROLLBACK_FAILED', 'ROLLING_BACK', 'CONFIRMED', 'FAILED') AND "
    "coalesce(x.reason, '') <> $5)) RETURNING x.rollout_id";
inline constexpr const char* kRolloutDesired =
    "SELECT desired FROM devices WHERE org_id = $1 AND id = $2 AND desired_version = $3::bigint";
inline constexpr const char* kRolloutUnsettled =
    "SELECT device_id FROM rollout_devices WHERE org_id = $1 AND rollout_id = $2 AND "
    "device_id::text > $3 AND state NOT IN ('WAITING', 'CONFIRMED', 'SUPERSEDED', 'SKIPPED', "
    "'ROLLED_BACK') ORDER BY device_id::text LIMIT 1000";

// --- What people see of it
#define FLOCK_ROLLOUT_COLUMNS                                                                  \
  "SELECT r.id, r.deployment_id, r.fleet_id, r.state, r.reason, flock_ms(r.created_at) AS "    \
  "created_at, flock_ms(r.ended_at) AS ended_at, r.stage, array_to_string(r.stage_ends, ',') " \
  "AS stage_ends, r.gates, p.strategy,"                                                        \
  " l.id AS release_id, l.version AS release_version, count(x.*) AS total,"                    \
  " count(*) FILTER (WHERE x.state = 'WAITING') AS waiting,"                                   \
  " count(*) FILTER (WHERE x.state = 'PENDING') AS pending, count(*) FILTER (WHERE x.state = " \
  "'DELIVERED') AS delivered,"                                                                 \
  " count(*) FILTER (WHERE x.state = 'DOWNLOADING') AS downloading, count(*) FILTER (WHERE "   \
  "x.state = 'STARTING') AS starting,"                                                         \
  " count(*) FILTER (WHERE x.state = 'SOAKING') AS soaking, count(*) FILTER (WHERE x.state = " \
  "'CONFIRMED') AS confirmed,"                                                                 \
  " count(*) FILTER (WHERE x.state = 'FAILED') AS failed, count(*) FILTER (WHERE x.state = "   \
  "'SUPERSEDED') AS superseded, count(*) FILTER (WHERE x.state = 'SKIPPED') AS skipped,"       \
  " count(*) FILTER (WHERE x.state = 'ROLLING_BACK') AS rolling_back, count(*) FILTER (WHERE " \
  "x.state = 'ROLLED_BACK') AS rolled_back, count(*) FILTER (WHERE x.state = "                 \
  "'ROLLBACK_FAILED') AS rollback_failed"                                                      \
  " FROM rollouts r JOIN releases l ON l.id = r.release_id JOIN deployments p ON p.id = "      \
  "r.deployment_id LEFT JOIN rollout_devices x ON x.rollout_id = r.id "
inline constexpr const char* kRolloutList = FLOCK_ROLLOUT_COLUMNS
    "WHERE r.org_id = $1 AND ($2 = '' OR r.id::text < $2) GROUP BY r.id, l.id, p.id ORDER BY "
    "r.id::text DESC LIMIT $3::bigint";
inline constexpr const char* kRolloutGet =
    FLOCK_ROLLOUT_COLUMNS "WHERE r.org_id = $1 AND r.id = $2 GROUP BY r.id, l.id, p.id";
inline constexpr const char* kRolloutDevices =
    "SELECT x.device_id, d.name, d.online, x.state, x.reason, x.stage, x.desired_version, "
    "flock_ms(x.began_at) AS began_at, flock_ms(x.updated_at) AS updated_at FROM rollout_devices x "
    "JOIN devices d ON d.id = x.device_id"
    " WHERE x.org_id = $1 AND x.rollout_id = $2 AND x.device_id::text > $3 ORDER BY "
    "x.device_id::text LIMIT $4::bigint";

// --- Newcomers: devices that came after their fleet's deployment and have nothing yet
// One that its rollout knows already cannot run the release, one that another rollout is about to
// give something gets that, and a release that was found invalid goes to nobody any more.
inline constexpr const char* kLatecomers =
    "SELECT d.id, d.org_id, p.rollout_id FROM "
    "devices d JOIN fleets f ON f.id = d.fleet_id JOIN deployments p ON p.id = f.deployment_id"
    " WHERE d.desired_release_id IS NULL AND NOT d.selection_stale AND d.revoked_at IS NULL AND "
    "d.removed_at IS NULL AND p.rollout_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM "
    "rollout_devices x WHERE x.org_id = d.org_id AND x.device_id = d.id AND (x.rollout_id = "
    "p.rollout_id OR (x.state IN ('WAITING', 'PENDING') AND x.desired_version = 0))) AND NOT "
    "EXISTS (SELECT 1 FROM releases l WHERE l.id = "
    "p.release_id AND l.state = 'INVALID') LIMIT 200";

}  // namespace flock::postgres::sql

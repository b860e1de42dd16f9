// SPDX-License-Identifier: Apache-2.0
// Statements about devices, their history, and operations on many of them. The list's own statement
// is put together by device_query.h.
#pragma once

namespace flock::postgres::sql {

// Until the end of the transaction nobody else decides about this public key.
inline constexpr const char* kDeviceKeyLock =
    "SELECT pg_advisory_xact_lock(hashtextextended($1, 1)) AS locked";
inline constexpr const char* kDeviceByPublicKey =
    "SELECT id, org_id, fleet_id, name, revoked_at IS NOT NULL AS revoked FROM devices WHERE "
    "public_key = $1 AND removed_at IS NULL";
inline constexpr const char* kDeviceInsert =
    "WITH made AS (INSERT INTO devices(id, org_id, fleet_id, name, public_key, "
    "wireguard_public_key, hardware, architecture, variant, agent_version) VALUES ($1::uuid, "
    "$2::uuid, $3::uuid, $4, $5, $6, $7::jsonb, $8, $9, $10) RETURNING org_id, id, fleet_id) "
    "INSERT INTO device_history(org_id, device_id, kind, actor, detail) SELECT org_id, id, "
    "'REGISTERED', 'device', jsonb_build_object('fleet_id', fleet_id) FROM made";
inline constexpr const char* kDeviceForToken =
    "SELECT id, org_id, fleet_id, name, public_key, revoked_at IS NOT NULL AS revoked FROM devices "
    "WHERE id = $1 AND removed_at IS NULL";
#define FLOCK_DEVICE_COLUMNS                                                                       \
  "SELECT d.id, d.name, d.online, d.hardware, d.agent_version, d.desired_version, d.labels, "      \
  "d.attributes, d.notes, d.decommission_reason, d.turned_reason, flock_ms(d.turned_at) AS "       \
  "turned_at, flock_ms(d.decommissioned_at) AS decommissioned_at, flock_ms(d.clone_suspected_at) " \
  "AS clone_suspected_at, "                                                                        \
  "flock_ms(d.last_seen_at) AS last_seen_at, flock_ms(d.registered_at) AS registered_at, "         \
  "flock_ms(d.revoked_at) AS revoked_at, f.id AS fleet_id, f.slug AS fleet_slug, f.name AS "       \
  "fleet_name, r.id AS release_id, r.version AS release_version"
#define FLOCK_DEVICE_JOINS                                                                      \
  " JOIN fleets f ON f.id = d.fleet_id AND f.org_id = d.org_id LEFT JOIN releases r ON r.id = " \
  "d.desired_release_id AND r.org_id = d.org_id "
inline constexpr const char* kDeviceGet =
    FLOCK_DEVICE_COLUMNS " FROM devices d" FLOCK_DEVICE_JOINS
                         "WHERE d.org_id = $1 AND d.removed_at IS NULL AND d.id = $2::uuid";
inline constexpr const char* kDeviceByName = FLOCK_DEVICE_COLUMNS
    " FROM devices d" FLOCK_DEVICE_JOINS
    "WHERE d.org_id = $1 AND d.removed_at IS NULL AND d.name = $2 ORDER BY d.id LIMIT 2";
// Whoever changes a device reads it under this lock, so that no change is lost.
inline constexpr const char* kDeviceLock =
    "SELECT 1 AS locked FROM devices WHERE org_id = $1 AND id = $2 FOR UPDATE";
// Removed ones too: their history stays.
inline constexpr const char* kDeviceAny =
    "SELECT id, name, removed_at IS NOT NULL AS removed, coalesce(removed_at < now() - interval "
    "'30 days', false) AS too_late, removed_from_fleet_id FROM devices WHERE org_id = $1 AND id = "
    "$2";
inline constexpr const char* kDeviceUpdate =
    "UPDATE devices SET name = $3, labels = $4::jsonb, attributes = $5::jsonb, notes = $6 WHERE "
    "org_id = $1 AND id = $2";
// Its connection is ended from here.
#define FLOCK_DEVICE_ENDS                                                          \
  ", online = false, turned_at = CASE WHEN online THEN now() ELSE turned_at END, " \
  "turned_reason = CASE WHEN online THEN 'revoked' ELSE turned_reason END"
inline constexpr const char* kDeviceRevoke =
    "UPDATE devices SET revoked_at = coalesce(revoked_at, now())" FLOCK_DEVICE_ENDS
    " WHERE org_id = $1 AND id = $2";
inline constexpr const char* kDeviceDecommission =
    "UPDATE devices SET revoked_at = coalesce(revoked_at, now()), decommissioned_at = "
    "coalesce(decommissioned_at, now()), decommission_reason = $3" FLOCK_DEVICE_ENDS
    " WHERE org_id = $1 AND id = $2";
#undef FLOCK_DEVICE_ENDS
inline constexpr const char* kDeviceRemove =
    "UPDATE devices SET removed_at = now(), removed_from_fleet_id = fleet_id, fleet_id = NULL "
    "WHERE org_id = $1 AND id = $2";
// What its removal revoked, in the same instant, is valid again; what was revoked before stays so.
inline constexpr const char* kDeviceUndelete =
    "UPDATE devices SET revoked_at = CASE WHEN revoked_at < removed_at THEN revoked_at END, "
    "removed_at = NULL, fleet_id = $3, removed_from_fleet_id = NULL WHERE org_id = $1 AND id = $2";
inline constexpr const char* kDeviceClearClone =
    "UPDATE devices SET clone_suspected_at = NULL WHERE org_id = $1 AND id = $2";

// --- Moves and bulk changes: $2 holds the ids
// ----------------------------------------------------------
// A rollout of the fleet that is left has no say any more.
inline constexpr const char* kMoveLeave =
    "UPDATE rollout_devices x SET state = 'SUPERSEDED', reason = 'the device moved to another "
    "fleet', updated_at = now() FROM rollouts r, devices d WHERE x.org_id = $1 AND x.device_id = "
    "ANY($2::uuid[]) AND r.id = x.rollout_id AND r.ended_at IS NULL AND d.id = x.device_id AND "
    "r.fleet_id = d.fleet_id AND d.fleet_id <> $3::uuid AND x.state NOT IN ('CONFIRMED', 'FAILED', "
    "'SUPERSEDED', 'SKIPPED', 'ROLLED_BACK', 'ROLLBACK_FAILED')";
// It may have been in the fleet before, and runs its release anew.
inline constexpr const char* kMoveForget =
    "DELETE FROM rollout_devices x USING fleets f, deployments p, devices d WHERE x.org_id = $1 "
    "AND x.device_id = ANY($2::uuid[]) AND f.id = $3::uuid AND p.org_id = f.org_id AND (p.id = "
    "f.deployment_id OR (p.stands AND p.fleet_id = f.id)) AND x.rollout_id = p.rollout_id AND d.id "
    "= x.device_id AND d.fleet_id <> f.id";
// Without a desired release it is a latecomer of its new fleet, which gives it that fleet's. A
// fleet that has none leaves it what it runs.
inline constexpr const char* kMove =
    "WITH moved AS (UPDATE devices d SET fleet_id = f.id, desired_release_id = CASE WHEN "
    "f.deployment_id IS NULL THEN d.desired_release_id END FROM fleets f, devices o WHERE d.org_id "
    "= $1 AND d.id = ANY($2::uuid[]) AND d.removed_at IS NULL AND f.org_id = d.org_id AND f.id = "
    "$3::uuid AND o.id = d.id AND d.fleet_id <> f.id RETURNING d.org_id, d.id, o.fleet_id AS "
    "before) INSERT INTO device_history(org_id, device_id, kind, actor, detail) SELECT org_id, id, "
    "'MOVED', $4, jsonb_build_object('fleet_id', $3::text, 'from_fleet_id', before) FROM moved";
inline constexpr const char* kRelabel =
    "WITH changed AS (UPDATE devices d SET labels = (d.labels - $4::text[]) || $3::jsonb WHERE "
    "d.org_id = $1 AND d.id = ANY($2::uuid[]) AND d.removed_at IS NULL AND d.labels <> (d.labels - "
    "$4::text[]) || $3::jsonb RETURNING d.org_id, d.id) INSERT INTO device_history(org_id, "
    "device_id, kind, actor, detail) SELECT org_id, id, 'LABELS_CHANGED', $5, "
    "jsonb_build_object('set', $3::jsonb, 'remove', to_jsonb($4::text[])) FROM changed";
inline constexpr const char* kTooManyLabels =
    "SELECT id FROM devices d WHERE org_id = $1 AND id = ANY($2::uuid[]) AND (SELECT count(*) FROM "
    "jsonb_object_keys((d.labels - $4::text[]) || $3::jsonb)) > 64 LIMIT 1";

// --- History
// --------------------------------------------------------------------------------------
inline constexpr const char* kDeviceHistoryInsert =
    "INSERT INTO device_history(org_id, device_id, kind, actor, detail) VALUES ($1, $2, $3, $4, "
    "$5::jsonb)";
inline constexpr const char* kDeviceHistory =
    "SELECT id, kind, actor, detail, flock_ms(at) AS at FROM device_history WHERE org_id = $1 AND "
    "device_id = $2 AND ($3::bigint = 0 OR id < $3::bigint) ORDER BY id DESC LIMIT $4::bigint";

// --- Operations
// -----------------------------------------------------------------------------------
#define FLOCK_OPERATION_COLUMNS                                                           \
  "SELECT id, org_id, kind, state, actor, request, total_count, changed_count, problem, " \
  "flock_ms(created_at) AS created_at, flock_ms(ended_at) AS ended_at FROM operations "
inline constexpr const char* kOperationGet =
    FLOCK_OPERATION_COLUMNS "WHERE org_id = $1 AND id = $2::uuid";
inline constexpr const char* kOperationList = FLOCK_OPERATION_COLUMNS
    "WHERE org_id = $1 AND ($2 = '' OR id < nullif($2, '')::uuid) ORDER BY id DESC LIMIT "
    "$3::bigint";
inline constexpr const char* kOperationNext =
    "SELECT id, org_id, array_to_string(fleets, ',') AS fleets FROM operations WHERE state = "
    "'RUNNING' ORDER BY id LIMIT 1";
// Nothing when another process has it.
inline constexpr const char* kOperationTake =
    "SELECT actor, request, total_count FROM operations WHERE org_id = $1 AND id = $2 AND state = "
    "'RUNNING' FOR UPDATE SKIP LOCKED";
// From the $3-th, counted from 1, to the $4-th.
inline constexpr const char* kOperationDevices =
    "SELECT array_to_string(device_ids[$3::integer:$4::integer], ',') AS ids FROM operations WHERE "
    "org_id = $1 AND id = $2";
inline constexpr const char* kOperationDone =
    "UPDATE operations SET state = 'DONE', changed_count = $3::bigint, device_ids = NULL, ended_at "
    "= clock_timestamp() WHERE org_id = $1 AND id = $2";
inline constexpr const char* kOperationFailed =
    "UPDATE operations SET state = 'FAILED', problem = $3, device_ids = NULL, ended_at = now() "
    "WHERE org_id = $1 AND id = $2 AND state = 'RUNNING'";

// --- The backend's own
// ----------------------------------------------------------------------------
// At most once an hour for one device.
inline constexpr const char* kCloneDue =
    "SELECT 1 AS due FROM devices WHERE org_id = $1 AND id = $2 AND (clone_suspected_at IS NULL OR "
    "clone_suspected_at < now() - interval '1 hour')";
inline constexpr const char* kCloneSuspected =
    "WITH marked AS (UPDATE devices SET clone_suspected_at = now() WHERE org_id = $1 AND id = $2 "
    "AND (clone_suspected_at IS NULL OR clone_suspected_at < now() - interval '1 hour') RETURNING "
    "org_id, id) INSERT INTO device_history(org_id, device_id, kind, actor, detail) SELECT org_id, "
    "id, 'CLONE_SUSPECTED', 'flock', $3::jsonb FROM marked RETURNING 1 AS told";
inline constexpr const char* kRevokedSince =
    "SELECT id, flock_ms(revoked_at) AS revoked_at FROM devices WHERE revoked_at > now() - "
    "$1::bigint * interval '1 millisecond'";
inline constexpr const char* kDeviceRepositories =
    "SELECT r.workload FROM devices d JOIN releases r ON r.org_id = d.org_id AND r.id = "
    "d.desired_release_id WHERE d.org_id = $1 AND d.id = "
    "$2 AND d.revoked_at IS NULL AND d.removed_at IS NULL";

}  // namespace flock::postgres::sql

// SPDX-License-Identifier: Apache-2.0
// Statements about environment variables, and about desired states that they change.
#pragma once

namespace flock::postgres::sql {

#define FLOCK_VARIABLE_COLUMNS                                                               \
  "SELECT id, level, service, name, value, sealed, sealed IS NOT NULL AS secret, owner_id, " \
  "flock_ms(created_at) AS created_at, flock_ms(updated_at) AS updated_at, updated_by FROM " \
  "variables "
inline constexpr const char* kVariableList = FLOCK_VARIABLE_COLUMNS
    "WHERE org_id = $1 AND owner_id = $2 AND ($3 = '' OR service = $3) AND id::text > $4 ORDER BY "
    "id::text LIMIT $5::bigint";
inline constexpr const char* kVariableGet =
    FLOCK_VARIABLE_COLUMNS "WHERE org_id = $1 AND owner_id = $2 AND service = $3 AND name = $4";
inline constexpr const char* kVariableSet =
    "INSERT INTO variables(id, org_id, level, fleet_id, device_id, service, name, value, sealed, "
    "updated_by) VALUES ($1, $2, $3, $4::uuid, $5::uuid, $6, $7, $8, $9, $10) ON CONFLICT (org_id, "
    "owner_id, service, name) DO UPDATE SET value = excluded.value, sealed = excluded.sealed, "
    "updated_at = now(), updated_by = excluded.updated_by";
inline constexpr const char* kVariableUnset =
    "DELETE FROM variables WHERE org_id = $1 AND owner_id = $2 AND service = $3 AND name = $4";
inline constexpr const char* kVariableSize =
    "SELECT count(*) AS count, coalesce(sum(octet_length(name) + octet_length(coalesce(value, "
    "sealed))), 0) AS bytes FROM variables WHERE org_id = $1 AND owner_id = $2";
// Until the end of the transaction nobody else changes the owner's variables.
inline constexpr const char* kVariablesLock =
    "SELECT pg_advisory_xact_lock(hashtextextended($1, 5)) AS locked";
// What reaches one device.
inline constexpr const char* kVariablesOfDevice = FLOCK_VARIABLE_COLUMNS
    "WHERE org_id = $1 AND owner_id IN (SELECT unnest(ARRAY[d.org_id, d.fleet_id, d.id]) FROM "
    "devices d WHERE d.org_id = $1 AND d.id = $2) ORDER BY name, id";
// Those of an organization, its fleets and devices alike.
inline constexpr const char* kVariablesOfOwners =
    FLOCK_VARIABLE_COLUMNS "WHERE org_id = $1 AND owner_id = ANY($2::uuid[]) ORDER BY name, id";
// A device by id or name, with the release that it is to run.
inline constexpr const char* kDeviceForVariables =
    "SELECT d.id, d.name, r.workload FROM devices d LEFT JOIN releases r ON r.org_id = d.org_id "
    "AND r.id = d.desired_release_id WHERE d.org_id = $1 AND d.removed_at IS NULL AND (d.id::text "
    "= $2 OR d.name = $2) ORDER BY d.id::text <> $2, d.id LIMIT 2";

// --- Desired states to be made anew
// Devices without a release are marked too, and those that are marked already: the lock that this
// takes orders the change before or after the making of a desired state, never beside it.
#define FLOCK_MARK_STALE(condition)                                                        \
  "WITH reached AS (SELECT id FROM devices WHERE org_id = $1 AND removed_at IS NULL "      \
  "AND " condition                                                                         \
  " ORDER BY id FOR UPDATE) UPDATE devices d SET desired_stale = true FROM reached WHERE " \
  "d.org_id = $1 AND d.id = reached.id"
inline constexpr const char* kStaleOrganization = FLOCK_MARK_STALE("org_id = $2");
inline constexpr const char* kStaleFleet = FLOCK_MARK_STALE("fleet_id = $2");
inline constexpr const char* kStaleDevice = FLOCK_MARK_STALE("id = $2");
inline constexpr const char* kStaleDevices =
    "SELECT id, org_id FROM devices WHERE desired_stale AND desired_release_id IS NOT NULL AND "
    "revoked_at IS NULL AND removed_at IS NULL AND id > $1::uuid ORDER BY id LIMIT 200";
inline constexpr const char* kStaleLock =
    "SELECT d.id, d.architecture, d.variant, d.desired_version, d.desired, d.desired_release_id, "
    "d.desired_rollout_id, r.version AS release_version, r.workload, p.soak_ms FROM devices d JOIN "
    "releases r ON r.org_id = d.org_id AND r.id = d.desired_release_id LEFT JOIN deployments p ON "
    "p.org_id = d.org_id AND p.rollout_id = d.desired_rollout_id WHERE d.org_id = $1 AND d.id = $2 "
    "AND d.desired_stale AND d.revoked_at IS NULL AND d.removed_at IS NULL FOR UPDATE OF d";
inline constexpr const char* kStaleDone =
    "UPDATE devices SET desired_stale = false WHERE org_id = $1 AND id = $2";
inline constexpr const char* kStaleRebuilt =
    "UPDATE devices SET desired_stale = false, desired_version = $3::bigint, desired = $4::bytea "
    "WHERE org_id = $1 AND id = $2";
// A device that is still on its way goes back to the start; one that is settled stays so, but what
// it says from now on is about the new version.
inline constexpr const char* kRolloutFollows =
    "UPDATE rollout_devices SET desired_version = $4::bigint, state = CASE WHEN state IN "
    "('DELIVERED', 'DOWNLOADING', 'STARTING', 'SOAKING') THEN 'PENDING' ELSE state END, updated_at "
    "= now() WHERE org_id = $1 AND device_id = $2 AND rollout_id = $3::uuid AND desired_version > "
    "0 "
    "RETURNING 1 AS ok";

// --- Devices that are gone
inline constexpr const char* kDevicesToClear =
    "SELECT id, org_id FROM devices WHERE removed_at IS NOT NULL AND desired IS NOT NULL ORDER BY "
    "id LIMIT 200";
inline constexpr const char* kDeviceCleared =
    "UPDATE devices SET desired = NULL WHERE org_id = $1 AND id = $2 AND removed_at IS NOT NULL";

// --- Values under an older key. $1: how a value under the present key begins
inline constexpr const char* kVariablesToReseal =
    "SELECT id, org_id, level, owner_id, service, name, sealed FROM variables WHERE sealed IS NOT "
    "NULL AND NOT starts_with(sealed, $1) AND id > $2::uuid ORDER BY id LIMIT 100";
inline constexpr const char* kVariableResealed =
    "UPDATE variables SET sealed = $4 WHERE org_id = $1 AND id = $2 AND sealed = $3";
inline constexpr const char* kDesiredToReseal =
    "SELECT id, org_id, desired FROM devices WHERE desired IS NOT NULL AND substr(desired, 1, "
    "length($1::bytea)) <> $1::bytea AND id > $2::uuid ORDER BY id LIMIT 100";
inline constexpr const char* kDesiredResealed =
    "UPDATE devices SET desired = $4::bytea WHERE org_id = $1 AND id = $2 AND desired = $3::bytea";

}  // namespace flock::postgres::sql

// SPDX-License-Identifier: Apache-2.0
// Every SQL statement of the backend, by name. org_id stands in each one that knows its tenant;
// row-level security stands under all.
#pragma once

#include "stores/postgres/device_statements.h"
#include "stores/postgres/presence_statements.h"
#include "stores/postgres/provisioning_statements.h"
#include "stores/postgres/release_statements.h"
#include "stores/postgres/subscription_statements.h"

namespace flock::postgres::sql {

// --- Setup and keys
// -------------------------------------------------------------------------------
inline constexpr const char* kSetupState = "SELECT used_at IS NOT NULL AS used FROM setup";
inline constexpr const char* kSetupStore =
    "INSERT INTO setup(key_hash) VALUES ($1) ON CONFLICT (only_one) DO UPDATE SET key_hash = "
    "excluded.key_hash WHERE setup.used_at IS NULL";
inline constexpr const char* kSetupUse =
    "UPDATE setup SET used_at = now() WHERE used_at IS NULL AND key_hash = $1 RETURNING 1 AS ok";
inline constexpr const char* kOrganizationInsert =
    "INSERT INTO organizations(id, name, slug) VALUES ($1, $2, $3)";
// Its first key: everything its owner may.
inline constexpr const char* kApiKeyInsert =
    "INSERT INTO api_keys(id, org_id, name, prefix, hash) VALUES ($1, $2, $3, $4, $5)";
inline constexpr const char* kApiKeyByHash =
    "SELECT k.id, k.name, k.org_id, k.role, array_to_string(k.scopes, ',') AS scopes, "
    "array_to_string(k.fleet_ids, ',') AS fleet_ids, flock_ms(k.expires_at) AS expires_at, "
    "coalesce(k.last_used_at < now() - interval '1 minute', true) AS unused_for_a_while, "
    "o.name AS org_name, o.slug AS org_slug FROM api_keys k JOIN organizations o ON o.id = "
    "k.org_id WHERE k.hash = $1 AND k.revoked_at IS NULL";
inline constexpr const char* kApiKeyUsed =
    "UPDATE api_keys SET last_used_at = now() WHERE org_id = $1 AND id = $2";

// --- Mutations: what surrounds every change
// -------------------------------------------------------
inline constexpr const char* kTransactionId = "SELECT pg_current_xact_id()::text AS id";
inline constexpr const char* kTransactionStatus = "SELECT pg_xact_status($1::xid8)::text AS status";
// The owner is the organization, or the person where there is none.
inline constexpr const char* kIdempotencyInsert =
    "INSERT INTO idempotency_keys(org_id, user_id, principal, operation, key, fingerprint) VALUES "
    "($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING 1 AS fresh";
inline constexpr const char* kIdempotencyGet =
    "SELECT fingerprint, status, answer FROM idempotency_keys WHERE owner_id = $1 AND principal = "
    "$2 AND operation = $3 AND key = $4";
inline constexpr const char* kIdempotencyStore =
    "UPDATE idempotency_keys SET status = $5::integer, answer = $6 WHERE owner_id = $1 AND "
    "principal = $2 AND operation = $3 AND key = $4";
inline constexpr const char* kIdempotencyExpire =
    "DELETE FROM idempotency_keys WHERE created_at < now() - interval '24 hours'";

// --- Fleets
// ---------------------------------------------------------------------------------------
#define FLOCK_FLEET_COLUMNS                                                                     \
  "SELECT f.id, f.name, f.slug, flock_ms(f.created_at) AS created_at,"                          \
  " (SELECT count(*) FROM devices d WHERE d.org_id = f.org_id AND d.fleet_id = f.id AND "       \
  "d.removed_at IS NULL) AS "                                                                   \
  "device_count,"                                                                               \
  " (SELECT count(*) FROM devices d WHERE d.org_id = f.org_id AND d.fleet_id = f.id AND "       \
  "d.removed_at IS NULL AND "                                                                   \
  "d.online) AS online_count,"                                                                  \
  " r.id AS release_id, r.version AS release_version FROM fleets f LEFT JOIN deployments p ON " \
  "p.id = f.deployment_id LEFT JOIN releases r ON r.id = p.release_id "
inline constexpr const char* kFleetInsert =
    "INSERT INTO fleets(id, org_id, name, slug) VALUES ($1, $2, $3, $4)";
inline constexpr const char* kFleetList =
    FLOCK_FLEET_COLUMNS "WHERE f.org_id = $1 AND f.slug > $2 ORDER BY f.slug LIMIT $3::bigint";
inline constexpr const char* kFleetGet =
    FLOCK_FLEET_COLUMNS "WHERE f.org_id = $1 AND (f.id::text = $2 OR f.slug = $2)";
inline constexpr const char* kFleetLock =
    "SELECT 1 AS locked FROM fleets WHERE org_id = $1 AND (id::text = $2 OR slug = $2) FOR NO KEY "
    "UPDATE";
inline constexpr const char* kFleetRename =
    "UPDATE fleets SET name = $3 WHERE org_id = $1 AND id = $2";
inline constexpr const char* kFleetDelete = "DELETE FROM fleets WHERE org_id = $1 AND id = $2";

// --- Deployments and rollouts
// ---------------------------------------------------------------------
inline constexpr const char* kDeploymentInsert =
    "INSERT INTO deployments(id, org_id, release_id, fleet_id, device_ids, soak_ms, "
    "failure_timeout_ms, max_failed_ratio) VALUES ($1, $2, $3, $4::uuid, $5::uuid[], $6::bigint, "
    "$7::bigint, $8::double precision)";
#define FLOCK_DEPLOYMENT_COLUMNS                                                                 \
  "SELECT p.id, p.org_id, p.fleet_id, array_to_string(p.device_ids, ',') AS device_ids, "        \
  "p.soak_ms, p.failure_timeout_ms, p.max_failed_ratio,"                                         \
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
inline constexpr const char* kDeploymentDevices =
    "SELECT id, architecture, variant, desired_version FROM devices WHERE org_id = $1 AND "
    "removed_at IS NULL AND revoked_at IS NULL AND (fleet_id = $2::uuid OR id = ANY($3::uuid[])) "
    "ORDER BY id FOR UPDATE";
inline constexpr const char* kDevicesCount =
    "SELECT count(*) AS count FROM devices WHERE org_id = $1 AND removed_at IS NULL AND revoked_at "
    "IS NULL AND id = ANY($2::uuid[])";
inline constexpr const char* kDeploymentExecuted =
    "UPDATE deployments SET state = 'EXECUTED', rollout_id = $3 WHERE org_id = $1 AND id = $2 AND "
    "state = 'PENDING' RETURNING 1 AS ok";
inline constexpr const char* kFleetDeployment =
    "UPDATE fleets SET deployment_id = $3 WHERE org_id = $1 AND id = $2";
inline constexpr const char* kRolloutInsert =
    "INSERT INTO rollouts(id, org_id, deployment_id, release_id, fleet_id) VALUES ($1, $2, $3, $4, "
    "$5::uuid)";
inline constexpr const char* kRolloutDeviceInsert =
    "INSERT INTO rollout_devices(org_id, rollout_id, device_id, state, reason, desired_version) "
    "VALUES ($1, $2, $3, $4, $5, $6::bigint) ON CONFLICT (rollout_id, device_id) DO NOTHING";
inline constexpr const char* kSupersede =
    "UPDATE rollout_devices x SET state = 'SUPERSEDED', reason = 'a newer deployment took the "
    "device', updated_at = now() FROM rollouts r"
    " WHERE x.org_id = $1 AND x.device_id = $2 AND x.rollout_id <> $3 AND r.id = x.rollout_id AND "
    "r.state = 'RUNNING' AND x.state NOT IN ('CONFIRMED', 'FAILED', 'SUPERSEDED')";
inline constexpr const char* kDeviceWant =
    "UPDATE devices SET desired_version = $3::bigint, desired_release_id = $4, desired_rollout_id "
    "= $5, desired = $6::bytea, desired_stale = false WHERE org_id = $1 AND id = $2";
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
    "UPDATE rollout_devices SET state = 'DELIVERED', updated_at = now() WHERE org_id = $1 AND "
    "rollout_id = $2 AND device_id = $3 AND state = 'PENDING' AND desired_version = $4::bigint";
inline constexpr const char* kRolloutDeviceState =
    "UPDATE rollout_devices x SET state = $4, reason = nullif($5, ''), updated_at = now() FROM "
    "rollouts r WHERE x.org_id = $1 AND x.device_id = $2 AND x.desired_version = $3::bigint"
    " AND r.id = x.rollout_id AND r.state = 'RUNNING' AND (x.state NOT IN ('CONFIRMED', "
    "'SUPERSEDED', 'FAILED') OR (x.state = 'FAILED' AND $4 = 'CONFIRMED')) AND (x.state, "
    "coalesce(x.reason, '')) <> ($4, $5) RETURNING x.rollout_id";
inline constexpr const char* kRolloutDesired =
    "SELECT desired FROM devices WHERE org_id = $1 AND id = $2 AND desired_version = $3::bigint";
inline constexpr const char* kRolloutsRunning =
    "SELECT r.id, r.org_id, p.max_failed_ratio, p.failure_timeout_ms FROM rollouts r JOIN "
    "deployments p ON p.id = r.deployment_id WHERE r.state = 'RUNNING' ORDER BY r.id";
inline constexpr const char* kRolloutTimeouts =
    "UPDATE rollout_devices SET state = 'FAILED', reason = 'the device did not confirm in time', "
    "updated_at = now() WHERE org_id = $1 AND rollout_id = $2"
    " AND state IN ('DELIVERED', 'DOWNLOADING', 'STARTING', 'SOAKING') AND updated_at < now() - "
    "$3::bigint * interval '1 millisecond'";
inline constexpr const char* kRolloutRevoked =
    "UPDATE rollout_devices x SET state = 'FAILED', reason = 'device_revoked: the device was "
    "revoked', updated_at = now() FROM devices d WHERE x.org_id = $1 AND x.rollout_id = $2 AND "
    "d.org_id = x.org_id AND d.id = x.device_id AND d.revoked_at IS NOT NULL AND x.state NOT IN "
    "('CONFIRMED', 'FAILED', 'SUPERSEDED')";
inline constexpr const char* kRolloutUnsettled =
    "SELECT device_id FROM rollout_devices WHERE org_id = $1 AND rollout_id = $2 AND "
    "device_id::text > $3 AND "
    "state NOT IN ('CONFIRMED', 'SUPERSEDED') ORDER BY device_id::text LIMIT 1000";
#define FLOCK_ROLLOUT_COLUMNS                                                                  \
  "SELECT r.id, r.deployment_id, r.fleet_id, r.state, r.reason, flock_ms(r.created_at) AS "    \
  "created_at, flock_ms(r.ended_at) AS ended_at,"                                              \
  " l.id AS release_id, l.version AS release_version, count(x.*) AS total,"                    \
  " count(*) FILTER (WHERE x.state = 'PENDING') AS pending, count(*) FILTER (WHERE x.state = " \
  "'DELIVERED') AS delivered,"                                                                 \
  " count(*) FILTER (WHERE x.state = 'DOWNLOADING') AS downloading, count(*) FILTER (WHERE "   \
  "x.state = 'STARTING') AS starting,"                                                         \
  " count(*) FILTER (WHERE x.state = 'SOAKING') AS soaking, count(*) FILTER (WHERE x.state = " \
  "'CONFIRMED') AS confirmed,"                                                                 \
  " count(*) FILTER (WHERE x.state = 'FAILED') AS failed, count(*) FILTER (WHERE x.state = "   \
  "'SUPERSEDED') AS superseded,"                                                               \
  " min(x.reason) FILTER (WHERE x.state = 'FAILED') AS first_failure"                          \
  " FROM rollouts r JOIN releases l ON l.id = r.release_id LEFT JOIN rollout_devices x ON "    \
  "x.rollout_id = r.id "
inline constexpr const char* kRolloutList = FLOCK_ROLLOUT_COLUMNS
    "WHERE r.org_id = $1 AND ($2 = '' OR r.id::text < $2) GROUP BY r.id, l.id ORDER BY r.id::text "
    "DESC LIMIT $3::bigint";
inline constexpr const char* kRolloutGet =
    FLOCK_ROLLOUT_COLUMNS "WHERE r.org_id = $1 AND r.id = $2 GROUP BY r.id, l.id";
inline constexpr const char* kRolloutEnd =
    "UPDATE rollouts SET state = $3, reason = nullif($4, ''), ended_at = now() WHERE org_id = $1 "
    "AND id = $2 AND state = 'RUNNING' RETURNING 1 AS ok";
inline constexpr const char* kRolloutDevices =
    "SELECT x.device_id, d.name, x.state, x.reason, x.desired_version, flock_ms(x.updated_at) AS "
    "updated_at FROM rollout_devices x JOIN devices d ON d.id = x.device_id"
    " WHERE x.org_id = $1 AND x.rollout_id = $2 AND x.device_id::text > $3 ORDER BY "
    "x.device_id::text LIMIT $4::bigint";
// Devices that came after their fleet's deployment and have nothing yet. One that its rollout knows
// already cannot run the release, and one that was found invalid goes to nobody any more.
inline constexpr const char* kLatecomers =
    "SELECT d.id, d.org_id, d.architecture, d.variant, d.desired_version, f.deployment_id FROM "
    "devices d JOIN fleets f ON f.id = d.fleet_id JOIN deployments p ON p.id = f.deployment_id"
    " WHERE d.desired_release_id IS NULL AND d.revoked_at IS NULL AND d.removed_at IS NULL AND "
    "p.rollout_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM rollout_devices x WHERE x.rollout_id = "
    "p.rollout_id AND x.device_id = d.id) AND NOT EXISTS (SELECT 1 FROM releases l WHERE l.id = "
    "p.release_id AND l.state = 'INVALID') LIMIT 200";
// Again inside the transaction, so that a second leader cannot give out the same version.
inline constexpr const char* kLatecomerLock =
    "SELECT id, architecture, variant, desired_version FROM devices WHERE org_id = $1 AND id = $2 "
    "AND "
    "desired_release_id IS NULL AND revoked_at IS NULL AND removed_at IS NULL FOR UPDATE";

}  // namespace flock::postgres::sql

// SPDX-License-Identifier: Apache-2.0
// Every SQL statement of the backend, by name. org_id stands in each one that knows its tenant;
// row-level security stands under all.
#pragma once

#include "stores/postgres/device_statements.h"
#include "stores/postgres/presence_statements.h"
#include "stores/postgres/provisioning_statements.h"
#include "stores/postgres/release_statements.h"
#include "stores/postgres/rollout_statements.h"
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

}  // namespace flock::postgres::sql

// SPDX-License-Identifier: Apache-2.0
// Statements about organizations, their members, invitations and API keys.
#pragma once

namespace flock::postgres::sql {

inline constexpr const char* kUserByIdentity =
    "SELECT id, email, name FROM users WHERE issuer = $1 AND subject = $2";
inline constexpr const char* kUserUpsert =
    "INSERT INTO users(id, issuer, subject, email, name) VALUES ($1, $2, $3, $4, $5) ON CONFLICT "
    "(issuer, subject) DO UPDATE SET email = excluded.email, name = excluded.name RETURNING id, "
    "email, name";
inline constexpr const char* kMembershipsOfUser =
    "SELECT m.org_id, m.role, array_to_string(m.fleet_ids, ',') AS fleet_ids, o.name AS org_name, "
    "o.slug AS org_slug, flock_ms(o.created_at) AS created_at FROM members m JOIN organizations o "
    "ON o.id = m.org_id WHERE m.user_id = $1 ORDER BY o.slug";

// --- Organizations
inline constexpr const char* kOrganizationGet =
    "SELECT id, name, slug, flock_ms(created_at) AS created_at, telemetry_retention_days, "
    "logs_retention_days FROM organizations WHERE id = $1";
inline constexpr const char* kOrganizationRename =
    "UPDATE organizations SET name = $2 WHERE id = $1";
// --- Members
#define FLOCK_MEMBER_COLUMNS                                                                     \
  "SELECT m.user_id AS id, m.role, array_to_string(m.fleet_ids, ',') AS fleet_ids, "             \
  "flock_ms(m.created_at) AS created_at, u.email, u.name FROM members m JOIN users u ON u.id = " \
  "m.user_id "
inline constexpr const char* kMemberList = FLOCK_MEMBER_COLUMNS
    "WHERE m.org_id = $1 AND m.user_id::text > $2 ORDER BY m.user_id::text LIMIT $3::bigint";
inline constexpr const char* kMemberGet = FLOCK_MEMBER_COLUMNS
    "WHERE m.org_id = $1 AND (m.user_id::text = $2 OR (u.email <> '' AND u.email = $2))";
inline constexpr const char* kMemberInsert =
    "INSERT INTO members(org_id, user_id, role, fleet_ids) VALUES ($1, $2, $3, $4::uuid[])";
inline constexpr const char* kMemberUpdate =
    "UPDATE members SET role = $3, fleet_ids = $4::uuid[] WHERE org_id = $1 AND user_id = $2";
inline constexpr const char* kMemberRemove =
    "DELETE FROM members WHERE org_id = $1 AND user_id = $2";
// Locks the owners, so that two cannot leave at once.
inline constexpr const char* kOwnersLock =
    "SELECT user_id AS id FROM members WHERE org_id = $1 AND role = 'owner' ORDER BY user_id FOR "
    "UPDATE";

// --- Invitations
#define FLOCK_INVITATION_COLUMNS                                                             \
  "SELECT id, email, role, array_to_string(fleet_ids, ',') AS fleet_ids, invited_by, "       \
  "flock_ms(created_at) AS created_at, flock_ms(expires_at) AS expires_at, CASE WHEN "       \
  "accepted_at IS NOT NULL THEN 'ACCEPTED' WHEN revoked_at IS NOT NULL THEN 'REVOKED' WHEN " \
  "expires_at <= now() THEN 'EXPIRED' ELSE 'PENDING' END AS state, org_id FROM invitations "
inline constexpr const char* kInvitationInsert =
    "INSERT INTO invitations(id, org_id, email, role, fleet_ids, hash, invited_by, expires_at) "
    "VALUES ($1, $2, $3, $4, $5::uuid[], $6, $7, $8::timestamptz)";
inline constexpr const char* kInvitationList = FLOCK_INVITATION_COLUMNS
    "WHERE org_id = $1 AND id::text > $2 ORDER BY id::text LIMIT $3::bigint";
inline constexpr const char* kInvitationGet =
    FLOCK_INVITATION_COLUMNS "WHERE org_id = $1 AND id = $2";
inline constexpr const char* kInvitationByHash =
    FLOCK_INVITATION_COLUMNS "WHERE hash = $1 FOR UPDATE";
inline constexpr const char* kInvitationAccepted =
    "UPDATE invitations SET accepted_at = now() WHERE org_id = $1 AND id = $2";
inline constexpr const char* kInvitationRevoke =
    "UPDATE invitations SET revoked_at = coalesce(revoked_at, now()) WHERE org_id = $1 AND id = $2 "
    "AND accepted_at IS NULL";

// --- API keys
#define FLOCK_API_KEY_COLUMNS                                                                \
  "SELECT id, name, prefix, role, array_to_string(scopes, ',') AS scopes, "                  \
  "array_to_string(fleet_ids, ',') AS fleet_ids, created_by, flock_ms(created_at) AS "       \
  "created_at, flock_ms(expires_at) AS expires_at, flock_ms(last_used_at) AS last_used_at, " \
  "flock_ms(revoked_at) AS revoked_at FROM api_keys "
inline constexpr const char* kApiKeyList =
    FLOCK_API_KEY_COLUMNS "WHERE org_id = $1 AND id::text > $2 ORDER BY id::text LIMIT $3::bigint";
inline constexpr const char* kApiKeyGet = FLOCK_API_KEY_COLUMNS "WHERE org_id = $1 AND id = $2";
inline constexpr const char* kApiKeyCreate =
    "INSERT INTO api_keys(id, org_id, name, prefix, hash, role, scopes, fleet_ids, expires_at, "
    "created_by) VALUES ($1, $2, $3, $4, $5, $6, $7::text[], $8::uuid[], $9::timestamptz, $10)";
inline constexpr const char* kApiKeyRevoke =
    "UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE org_id = $1 AND id = $2";

}  // namespace flock::postgres::sql

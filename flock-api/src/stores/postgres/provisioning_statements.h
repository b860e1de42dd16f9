// SPDX-License-Identifier: Apache-2.0
// SQL of how devices come in: provisioning keys, devices known beforehand, the waiting room.
#pragma once

namespace flock::postgres::sql {

// --- Provisioning keys
#define FLOCK_KEY_COLUMNS                                                                   \
  "SELECT id, fleet_id, name, prefix, uses, max_uses, flock_ms(expires_at) AS expires_at, " \
  "flock_ms(revoked_at) AS revoked_at, flock_ms(created_at) AS created_at, "                \
  "array_to_json(allowed_networks)::text AS allowed_networks, labels::text AS labels, "     \
  "approval_required, mode FROM provisioning_keys "
inline constexpr const char* kProvisioningKeyInsert =
    "INSERT INTO provisioning_keys(id, org_id, fleet_id, name, prefix, hash, max_uses, expires_at, "
    "allowed_networks, labels, approval_required, mode) VALUES ($1, $2, $3, $4, $5, $6, "
    "$7::bigint, $8::timestamptz, $9::text[], $10::jsonb, $11::boolean, $12)";
inline constexpr const char* kProvisioningKeyList =
    FLOCK_KEY_COLUMNS "WHERE org_id = $1 AND id::text > $2 ORDER BY id::text LIMIT $3::bigint";
inline constexpr const char* kProvisioningKeyGet =
    FLOCK_KEY_COLUMNS "WHERE org_id = $1 AND id = $2";
inline constexpr const char* kProvisioningKeyLock =
    FLOCK_KEY_COLUMNS "WHERE org_id = $1 AND id = $2 FOR UPDATE";
inline constexpr const char* kProvisioningKeyChange =
    "UPDATE provisioning_keys SET name = $3, max_uses = $4::bigint, expires_at = $5::timestamptz "
    "WHERE org_id = $1 AND id = $2";
inline constexpr const char* kProvisioningKeyRevoke =
    "UPDATE provisioning_keys SET revoked_at = coalesce(revoked_at, now()) WHERE org_id = $1 AND "
    "id = $2";
inline constexpr const char* kProvisioningKeyByHash =
    "SELECT id, org_id, fleet_id, name, uses, max_uses, revoked_at IS NOT NULL AS revoked, "
    "coalesce(expires_at <= now(), false) AS expired, array_to_json(allowed_networks)::text AS "
    "allowed_networks, labels::text AS labels, approval_required, mode FROM provisioning_keys "
    "WHERE hash = $1";
// Nothing when the key may not be used any more: two devices cannot both take the last use. With $3
// somebody said yes to this very device, whatever the limits are. Every device of a crowd waits for
// this row until the one before it has committed.
inline constexpr const char* kProvisioningKeyUse =
    "UPDATE provisioning_keys SET uses = uses + 1 WHERE org_id = $1 AND id = $2 AND revoked_at IS "
    "NULL AND ($3::boolean OR ((max_uses IS NULL OR uses < max_uses) AND (expires_at IS NULL OR "
    "expires_at > now()))) RETURNING id";
// Of a key without a limit. Does not wait for the disk: a crash may forget the last few.
inline constexpr const char* kProvisioningKeyCount =
    "UPDATE provisioning_keys SET uses = uses + 1 WHERE org_id = $1 AND id = $2 AND "
    "set_config('synchronous_commit', 'off', true) = 'off'";

// What the key gives to a device that it let in.
inline constexpr const char* kDeviceLabelsOfKey =
    "UPDATE devices SET labels = $3::jsonb WHERE org_id = $1 AND id = $2";

// --- Devices known beforehand
#define FLOCK_PREREGISTRATION_COLUMNS                                               \
  "SELECT id, key_id, fleet_id, thumbprint, name, device_id, flock_ms(created_at) " \
  "AS created_at FROM preregistrations "
inline constexpr const char* kPreregistrationInsert =
    "INSERT INTO preregistrations(id, org_id, key_id, fleet_id, thumbprint, name) VALUES ($1, $2, "
    "$3, $4, $5, $6)";
inline constexpr const char* kPreregistrationList = FLOCK_PREREGISTRATION_COLUMNS
    "WHERE org_id = $1 AND key_id = $2 AND id::text > $3 ORDER BY id::text LIMIT $4::bigint";
inline constexpr const char* kPreregistrationGet =
    FLOCK_PREREGISTRATION_COLUMNS "WHERE org_id = $1 AND key_id = $2 AND id = $3";
inline constexpr const char* kPreregistrationDelete =
    "DELETE FROM preregistrations WHERE org_id = $1 AND id = $2";
inline constexpr const char* kPreregistrationOf =
    FLOCK_PREREGISTRATION_COLUMNS "WHERE org_id = $1 AND key_id = $2 AND thumbprint = $3";
inline constexpr const char* kPreregistrationUsed =
    "UPDATE preregistrations SET device_id = $3 WHERE org_id = $1 AND id = $2";

// --- The waiting room
#define FLOCK_REQUEST_COLUMNS                                                           \
  "SELECT id, fleet_id, key_id, thumbprint, name, hardware, agent_version, ip, state, " \
  "device_id, flock_ms(created_at) AS created_at, flock_ms(asked_at) AS asked_at, "     \
  "flock_ms(decided_at) AS decided_at, decided_by FROM device_requests "
inline constexpr const char* kDeviceRequestInsert =
    "INSERT INTO device_requests(id, org_id, fleet_id, key_id, thumbprint, name, hardware, "
    "agent_version, ip) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
inline constexpr const char* kDeviceRequestList = FLOCK_REQUEST_COLUMNS
    "WHERE org_id = $1 AND id::text > $2 AND ($3 = '' OR state = $3) ORDER BY id::text LIMIT "
    "$4::bigint";
inline constexpr const char* kDeviceRequestGet =
    FLOCK_REQUEST_COLUMNS "WHERE org_id = $1 AND id = $2";
inline constexpr const char* kDeviceRequestLock =
    FLOCK_REQUEST_COLUMNS "WHERE org_id = $1 AND id = $2 FOR UPDATE";
inline constexpr const char* kDeviceRequestOf =
    FLOCK_REQUEST_COLUMNS "WHERE org_id = $1 AND key_id = $2 AND thumbprint = $3 FOR UPDATE";
inline constexpr const char* kDeviceRequestsWaiting =
    "SELECT count(*) AS count FROM device_requests WHERE org_id = $1 AND key_id = $2 AND state = "
    "'PENDING'";
inline constexpr const char* kDeviceRequestAsked =
    "UPDATE device_requests SET asked_at = now(), ip = $3 WHERE org_id = $1 AND id = $2";
// An admitted device that was removed since waits anew.
inline constexpr const char* kDeviceRequestReopen =
    "UPDATE device_requests SET state = 'PENDING', decided_at = NULL, decided_by = NULL, device_id "
    "= NULL, asked_at = now(), ip = $3 WHERE org_id = $1 AND id = $2";
inline constexpr const char* kDeviceRequestDecide =
    "UPDATE device_requests SET state = $3, decided_at = now(), decided_by = $4 WHERE org_id = $1 "
    "AND id = $2";
inline constexpr const char* kDeviceRequestAdmitted =
    "UPDATE device_requests SET state = 'ADMITTED', device_id = $3 WHERE org_id = $1 AND id = $2";

}  // namespace flock::postgres::sql

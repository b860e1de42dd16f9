// SPDX-License-Identifier: Apache-2.0
// Statements of what devices were told to do.
#pragma once

namespace flock::postgres::sql {

#define FLOCK_COMMAND_COLUMNS                                                                    \
  "SELECT c.id, c.org_id, c.device_id, c.kind, c.service, array_to_json(c.volumes)::text AS "    \
  "volumes, c.seconds, c.state, c.message, c.actor, flock_ms(c.created_at) AS created_at, "      \
  "flock_ms(c.changed_at) AS changed_at, flock_ms(c.sent_at) AS sent_at, flock_ms(c.expires_at)" \
  " AS expires_at, d.online, d.name AS device_name FROM device_commands c JOIN devices d ON "    \
  "d.org_id = c.org_id AND d.id = c.device_id "
// The devices of $3 get the ids of $2, in order.
inline constexpr const char* kCommandsInsert =
    "INSERT INTO device_commands(id, org_id, device_id, kind, service, volumes, seconds, actor, "
    "expires_at) SELECT x.id, $1, x.device_id, $4, $5, $6::text[], $7::integer, $8, "
    "to_timestamp($9::double precision / 1000) FROM unnest($2::uuid[], $3::uuid[]) x(id, "
    "device_id)";
inline constexpr const char* kCommandsById =
    FLOCK_COMMAND_COLUMNS "WHERE c.org_id = $1 AND c.id = ANY($2::uuid[]) ORDER BY c.id";
inline constexpr const char* kCommandGet =
    FLOCK_COMMAND_COLUMNS "WHERE c.org_id = $1 AND c.device_id = $2 AND c.id = $3";
inline constexpr const char* kCommandList = FLOCK_COMMAND_COLUMNS
    "WHERE c.org_id = $1 AND c.device_id = $2 AND ($3 = '' OR c.id < nullif($3, '')::uuid) ORDER "
    "BY c.id DESC LIMIT $4::bigint";
inline constexpr const char* kCommandCancel =
    "UPDATE device_commands SET state = 'CANCELLED', changed_at = now() WHERE org_id = $1 AND "
    "device_id = $2 AND id = $3 AND state = 'PENDING' RETURNING id";
// Those that can be told something.
inline constexpr const char* kCommandTargets =
    "SELECT id, name FROM devices WHERE org_id = $1 AND id = ANY($2::uuid[]) AND removed_at IS "
    "NULL AND revoked_at IS NULL";

// --- The driver's
// ---------------------------------------------------------------------------------
// Who came online is sent again what he may have lost on the way; the id tells him so. That he is
// there is told before it is committed, so his row may not say so yet.
inline constexpr const char* kCommandsDue = FLOCK_COMMAND_COLUMNS
    "WHERE c.state IN ('PENDING', 'SENT') AND c.expires_at > now() AND (c.state = 'PENDING' OR "
    "c.device_id = ANY($1::uuid[])) AND (d.online OR c.device_id = ANY($1::uuid[])) ORDER BY c.id "
    "LIMIT 500";
inline constexpr const char* kCommandSent =
    "UPDATE device_commands SET state = 'SENT', sent_at = coalesce(sent_at, now()), changed_at = "
    "now() WHERE org_id = $1 AND id = $2 AND state = 'PENDING'";
// A device that ran it although it was believed lost has the last word.
inline constexpr const char* kCommandResults =
    "UPDATE device_commands c SET state = r.state, message = r.message, changed_at = now() FROM "
    "unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[]) r(org_id, device_id, id, "
    "state, message) WHERE c.org_id = r.org_id AND c.device_id = r.device_id AND c.id = r.id AND "
    "(c.state IN ('PENDING', 'SENT') OR r.state <> 'STARTED' AND c.state IN ('STARTED', "
    "'EXPIRED') AND c.state <> r.state)";
// What was sent may be under way; what was begun and never ended is given up after a day.
inline constexpr const char* kCommandsExpire =
    "UPDATE device_commands SET changed_at = now(), state = CASE WHEN state = 'STARTED' THEN "
    "'FAILED' ELSE 'EXPIRED' END, message = CASE state WHEN 'STARTED' THEN 'the device never said "
    "how it ended' WHEN 'SENT' THEN 'it was sent, and the device said nothing' ELSE 'the device "
    "did not come online in time' END WHERE (state = 'PENDING' AND expires_at < now()) OR (state = "
    "'SENT' AND expires_at < now() - interval '1 minute') OR (state = 'STARTED' AND changed_at < "
    "now() - interval '1 day') RETURNING org_id, device_id, id, state, message";

}  // namespace flock::postgres::sql

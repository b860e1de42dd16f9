// SPDX-License-Identifier: Apache-2.0
// The ingester's statements: whose a device is, and whether it is there. Each is for many devices
// of all tenants at once.
#pragma once

namespace flock::postgres::sql {

#define FLOCK_PRESENCE_COLUMNS                                                          \
  "SELECT id, org_id, fleet_id, agent_version, silent_after_ms, online, presence_seq, " \
  "session_seq, session_before FROM devices WHERE "

inline constexpr const char* kPresenceGet =
    FLOCK_PRESENCE_COLUMNS "id = ANY($1::uuid[]) AND removed_at IS NULL AND revoked_at IS NULL";
// In the order of ids, so that two ingesters cannot wait for each other.
inline constexpr const char* kPresenceLock = FLOCK_PRESENCE_COLUMNS
    "id = ANY($1::uuid[]) AND removed_at IS NULL AND revoked_at IS NULL ORDER BY id FOR NO KEY "
    "UPDATE";
// The ids stand there twice, so that even a planner without statistics goes by the index. `turned`
// is 0 for who neither came nor went. That a connection was lost is no sign of life.
inline constexpr const char* kPresencePut =
    "UPDATE devices d SET online = n.online, presence_seq = n.seq, session_seq = n.session, "
    "session_before = n.before, last_seen_at = CASE WHEN n.turned > 0 AND n.reason = "
    "'connection_lost' THEN d.last_seen_at ELSE now() END, agent_version = coalesce(nullif("
    "n.agent, ''), d.agent_version), silent_after_ms = n.silent, turned_at = coalesce(to_timestamp("
    "nullif(n.turned, 0) / 1000.0), d.turned_at), turned_reason = CASE WHEN n.turned = 0 THEN "
    "d.turned_reason ELSE n.reason END FROM unnest($1::uuid[], $2::boolean[], $3::bigint[], "
    "$4::bigint[], $5::bigint[], $6::text[], $7::bigint[], $8::bigint[], $9::text[]) AS n(id, "
    "online, seq, session, before, agent, silent, turned, reason) WHERE d.id = n.id AND d.id = "
    "ANY($1::uuid[])";
// Who is being changed by another process is heard from there.
inline constexpr const char* kPresenceTouch =
    "UPDATE devices SET last_seen_at = now() WHERE id IN (SELECT id FROM devices WHERE id = "
    "ANY($1::uuid[]) AND revoked_at IS NULL AND removed_at IS NULL ORDER BY id FOR NO KEY UPDATE "
    "SKIP LOCKED)";
// Those silent for longer than they may be, which is at most $1 ms; at most $2.
inline constexpr const char* kPresenceSilent = FLOCK_PRESENCE_COLUMNS
    "online AND last_seen_at < now() - silent_after_ms * interval '1 millisecond' AND "
    "silent_after_ms <= $1::bigint ORDER BY id LIMIT $2::bigint FOR NO KEY UPDATE SKIP LOCKED";
inline constexpr const char* kPresenceOff =
    "UPDATE devices SET online = false, turned_at = to_timestamp($2::bigint / 1000.0), "
    "turned_reason = $3 WHERE id = ANY($1::uuid[])";

#undef FLOCK_PRESENCE_COLUMNS

}  // namespace flock::postgres::sql

// SPDX-License-Identifier: Apache-2.0
// The gates of rollouts that look elsewhere: what they found last, and what they need to look.
#pragma once

namespace flock::postgres::sql {

// Rollouts that go forward and have such gates, with when each of them was looked at last.
inline constexpr const char* kRolloutsToCheck =
    "SELECT r.id, r.org_id, r.deployment_id, r.progress, r.stage, array_to_string(r.stage_ends, "
    "',') AS stage_ends, p.strategy, l.id AS release_id, l.version AS release_version, (SELECT "
    "jsonb_object_agg(c.gate, flock_ms(c.checked_at)) FROM rollout_checks c WHERE c.org_id = "
    "r.org_id AND c.rollout_id = r.id) AS checked FROM rollouts r JOIN deployments p ON p.org_id = "
    "r.org_id AND p.id = r.deployment_id LEFT JOIN releases l ON l.org_id = r.org_id AND l.id = "
    "r.release_id WHERE r.ended_at IS NULL AND r.state = 'RUNNING' AND "
    "jsonb_path_exists(p.strategy, '$.gates[*].kind') ORDER BY r.id";
inline constexpr const char* kChecks =
    "SELECT gate, flock_ms(checked_at) AS checked_at, value, sample, verdict, reason FROM "
    "rollout_checks WHERE org_id = $1 AND rollout_id = $2 ORDER BY gate";
// An older check does not take the place of a newer one.
inline constexpr const char* kCheckPut =
    "INSERT INTO rollout_checks(org_id, rollout_id, gate, checked_at, value, sample, verdict, "
    "reason, evidence) VALUES ($1, $2, $3::integer, $4::timestamptz, $5::double precision, "
    "$6::bigint, $7, $8, $9::jsonb) ON CONFLICT (rollout_id, gate) DO UPDATE SET checked_at = "
    "excluded.checked_at, value = excluded.value, sample = excluded.sample, verdict = "
    "excluded.verdict, reason = excluded.reason, evidence = excluded.evidence WHERE "
    "rollout_checks.checked_at < excluded.checked_at";
// Devices that a rollout reached, and since when: one of $3, those of the remainder $4, at most
// 10,000. Places are given by chance, and so is who is taken.
inline constexpr const char* kReachedDevices =
    "SELECT device_id, flock_ms(began_at) AS since FROM rollout_devices WHERE org_id = $1 AND "
    "rollout_id = $2 AND state IN ('DELIVERED', 'DOWNLOADING', 'STARTING', 'SOAKING', 'CONFIRMED', "
    "'FAILED') AND began_at IS NOT NULL AND place % $3::bigint = $4::bigint LIMIT 10000";
// Devices of the open stage or a later one that wait for their turn.
inline constexpr const char* kWaitingDevices =
    "SELECT device_id FROM rollout_devices WHERE org_id = $1 AND rollout_id = $2 AND state = "
    "'WAITING' ORDER BY place LIMIT 10000";

// --- What the requests of webhooks are signed with
inline constexpr const char* kGateSecretInsert =
    "INSERT INTO gate_secrets(id, org_id, deployment_id, gate, secret) VALUES ($1, $2, $3, "
    "$4::integer, $5)";
inline constexpr const char* kGateSecret =
    "SELECT id, secret FROM gate_secrets WHERE org_id = $1 AND deployment_id = $2 AND gate = "
    "$3::integer";
// Those under an older key. $1: how a value under the present key begins
inline constexpr const char* kGateSecretsToReseal =
    "SELECT id, org_id, secret FROM gate_secrets WHERE NOT starts_with(secret, $1) AND id > "
    "$2::uuid ORDER BY id LIMIT 100";
inline constexpr const char* kGateSecretResealed =
    "UPDATE gate_secrets SET secret = $4 WHERE org_id = $1 AND id = $2 AND secret = $3";

// --- Comparisons
inline constexpr const char* kEvidence =
    "SELECT evidence FROM rollout_checks WHERE org_id = $1 AND rollout_id = $2 AND gate = "
    "$3::integer AND evidence IS NOT NULL";
// Devices that were reached $3 ms ago or earlier, in the order in which they were: behind the
// device $5 that began at $4, without those whose place is $6 or higher. The first try counts.
inline constexpr const char* kUpdatedDevices =
    "SELECT device_id, began_at, state IN ('CONFIRMED', 'FAILED') AS settled, state = 'FAILED' OR "
    "unhealthy OR restarting AS bad, online FROM rollout_devices WHERE org_id = $1 AND rollout_id "
    "= $2 AND began_at <= now() - $3::bigint * interval '1 millisecond' AND (began_at, device_id) "
    "> ($4::timestamptz, $5::uuid) AND place < $6::bigint AND retries = 0 AND state IN ('PENDING', "
    "'DELIVERED', 'DOWNLOADING', 'STARTING', 'SOAKING', 'CONFIRMED', 'FAILED') ORDER BY began_at, "
    "device_id LIMIT 1000";
// $4 devices that wait, are there and run what an earlier rollout gave them, from the end of the
// rollout on, below the place $3.
inline constexpr const char* kOtherDevices =
    "SELECT x.place, y.unhealthy OR y.restarting AS bad FROM rollout_devices x JOIN devices d ON "
    "d.org_id = x.org_id AND d.id = x.device_id JOIN rollout_devices y ON y.org_id = x.org_id AND "
    "y.rollout_id = d.desired_rollout_id AND y.device_id = x.device_id WHERE x.org_id = $1 AND "
    "x.rollout_id = $2 AND x.state = 'WAITING' AND x.place < $3::bigint AND x.online AND y.state "
    "IN "
    "('CONFIRMED', 'ROLLED_BACK') ORDER BY x.place DESC LIMIT $4::bigint";

}  // namespace flock::postgres::sql

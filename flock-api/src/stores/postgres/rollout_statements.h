// SPDX-License-Identifier: Apache-2.0
// Deployments, rollouts, and the part of each device in them. What concerns many devices is one
// statement, however many there are.
#pragma once

namespace flock::postgres::sql {

// --- Deployments: what is to be done
inline constexpr const char* kDeploymentInsert =
    "INSERT INTO deployments(id, org_id, release_id, host_command, fleet_id, device_ids, filter, "
    "membership, priority, on_conflict, soak_ms, failure_timeout_ms, max_failed_ratio, strategy, "
    "created_by) VALUES ($1, $2, $3, $4::jsonb, $5::uuid, $6::uuid[], $7, $8, $9::integer, $10, "
    "$11::bigint, $12::bigint, $13::double precision, $14::jsonb, $15)";
#define FLOCK_DEPLOYMENT_COLUMNS                                                                 \
  "SELECT p.id, p.org_id, p.fleet_id, array_to_string(p.device_ids, ',') AS device_ids, "        \
  "p.filter, p.membership, p.priority, p.on_conflict, p.host_command, "                          \
  "p.soak_ms, p.failure_timeout_ms, p.max_failed_ratio, p.strategy, p.created_by,"               \
  " p.state, p.rollout_id, flock_ms(p.created_at) AS created_at, r.id AS release_id, r.version " \
  "AS release_version, r.workload FROM deployments p LEFT JOIN releases r ON r.id = p.release_id "
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
// What an older rollout has not begun on these devices, it shall not begin any more. Looked for
// device by device, by the OFFSET, and only then by state: by the planner's statistics a rollout
// that was just made has no parts and nothing waits, and all that wait would be read for each.
inline constexpr const char* kSupersedeWaiting =
    "UPDATE rollout_devices x SET state = 'SUPERSEDED', reason = 'a newer deployment took the "
    "device', updated_at = now() WHERE x.ctid = ANY(ARRAY(SELECT w.part FROM rollout_devices mine "
    "CROSS JOIN LATERAL (SELECT o.ctid AS part, o.rollout_id, o.state FROM rollout_devices o WHERE "
    "o.org_id = $1 AND o.device_id = mine.device_id OFFSET 0) w WHERE mine.org_id = $1 AND "
    "mine.rollout_id = $2 AND w.rollout_id <> $2 AND w.state = 'WAITING' AND (SELECT r.ended_at IS "
    "NULL FROM rollouts r WHERE r.id = w.rollout_id))) AND x.org_id = $1 AND x.state = 'WAITING'";
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
// The first of them behind $1, or that one itself while it is open.
inline constexpr const char* kRolloutsOpenFrom =
    "SELECT id, org_id FROM rollouts WHERE ended_at IS NULL AND id >= $1::uuid ORDER BY id LIMIT 2";
// Whoever decides about it, or orders, has it to himself.
inline constexpr const char* kRolloutLock =
    "SELECT r.id, r.org_id, r.deployment_id, r.state, r.reason, r.stage, "
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
// domain::StageCounts, from the tallies (migration 0016); NULL is 0. $3: the open stage.
inline constexpr const char* kStageCounts =
    "SELECT sum(count) AS total,"
    " sum(count) FILTER (WHERE state = 'SUPERSEDED') AS superseded,"
    " sum(count) FILTER (WHERE open AND online) AS updating,"
    " sum(count) FILTER (WHERE open AND NOT online) AS offline,"
    " sum(count) FILTER (WHERE state = 'CONFIRMED') AS confirmed,"
    " sum(count) FILTER (WHERE state = 'FAILED') AS failed,"
    " sum(count) FILTER (WHERE began_at > now() - interval '1 minute') AS began_lately,"
    " sum(count) FILTER (WHERE state = 'WAITING' AND stage <= $3::integer AND online) AS "
    "waiting_online,"
    " sum(count) FILTER (WHERE state = 'WAITING' AND stage <= $3::integer AND NOT online) AS "
    "waiting_offline,"
    " sum(count) FILTER (WHERE stage = $3::integer AND state IN ('CONFIRMED', 'FAILED')) AS "
    "stage_settled,"
    " sum(count) FILTER (WHERE stage = $3::integer AND (open OR state = 'WAITING') AND NOT online) "
    "AS stage_away,"
    " sum(count) FILTER (WHERE reached AND online) AS online,"
    " sum(count) FILTER (WHERE state = 'CONFIRMED' AND unhealthy) AS unhealthy,"
    " sum(count) FILTER (WHERE reached AND restarting) AS restarting,"
    " sum(count) FILTER (WHERE state = 'CONFIRMED' AND lately) AS confirmed_lately,"
    " sum(count) FILTER (WHERE state = 'FAILED' AND lately) AS failed_lately,"
    " sum(count) FILTER (WHERE reached AND wanted) AS to_return,"
    " sum(count) FILTER (WHERE state = 'ROLLING_BACK' AND online) AS returning,"
    " sum(count) FILTER (WHERE state = 'ROLLING_BACK' AND NOT online) AS returning_offline,"
    " sum(count) FILTER (WHERE state = 'ROLLED_BACK') AS returned,"
    " sum(count) FILTER (WHERE state = 'ROLLBACK_FAILED') AS stuck"
    " FROM (SELECT t.*, t.state IN ('PENDING', 'DELIVERED', 'DOWNLOADING', 'STARTING', 'SOAKING') "
    "AS open, t.state IN ('PENDING', 'DELIVERED', 'DOWNLOADING', 'STARTING', 'SOAKING', "
    "'CONFIRMED', 'FAILED') AS reached, t.settled_at > now() - interval '10 minutes' AS lately "
    "FROM rollout_tallies t WHERE t.org_id = $1 AND t.rollout_id = $2) t";
// Why a device failed ($3: FAILED or ROLLBACK_FAILED); the same one each time.
inline constexpr const char* kFirstFailure =
    "SELECT reason FROM rollout_devices WHERE org_id = $1 AND rollout_id = $2 AND state = $3 AND "
    "state IN ('FAILED', 'ROLLBACK_FAILED') ORDER BY left(reason, 200) LIMIT 1";
// Puts the tallies of a rollout together.
inline constexpr const char* kTalliesFold =
    "WITH gone AS (DELETE FROM rollout_tallies WHERE org_id = $1 AND rollout_id = $2 RETURNING "
    "*) INSERT INTO rollout_tallies(org_id, rollout_id, stage, state, online, wanted, unhealthy, "
    "restarting, began_at, settled_at, count) SELECT org_id, rollout_id, stage, state, online, "
    "wanted, unhealthy, restarting, CASE WHEN began_at > now() - interval '1 minute' THEN began_at "
    "ELSE '-infinity' END, CASE WHEN settled_at > now() - interval '10 minutes' THEN settled_at "
    "ELSE '-infinity' END, sum(count) FROM gone GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 HAVING "
    "sum(count) <> 0";
// Rollouts with so many tallies that they should be put together, ended ones too.
inline constexpr const char* kTalliesMany =
    "SELECT org_id, rollout_id FROM rollout_tallies GROUP BY org_id, rollout_id HAVING count(*) > "
    "$1::bigint";
// What devices came, went or were revoked since: rollouts know of it from now on. An ended rollout
// needs to know only what it could take back.
inline constexpr const char* kDeviceTurns =
    "WITH gone AS (DELETE FROM device_turns RETURNING device_id), turned AS (SELECT d.id, "
    "d.org_id, d.online, d.revoked_at IS NOT NULL AS revoked FROM devices d WHERE d.id IN (SELECT "
    "device_id FROM gone)), told AS (SELECT x.rollout_id, x.device_id, t.online, t.revoked AND "
    "r.ended_at IS NULL AND x.state IN ('WAITING', 'PENDING', 'DELIVERED', 'DOWNLOADING', "
    "'STARTING', 'SOAKING') AS lost FROM turned t JOIN rollout_devices x ON x.org_id = t.org_id "
    "AND x.device_id = t.id JOIN rollouts r ON r.org_id = x.org_id AND r.id = x.rollout_id WHERE "
    "r.ended_at IS NULL OR x.wanted FOR NO KEY UPDATE OF x) UPDATE rollout_devices x SET online = "
    "t.online, state = CASE "
    "WHEN t.lost THEN 'FAILED' ELSE x.state END, reason = CASE WHEN t.lost THEN 'device_revoked: "
    "the device was revoked' ELSE x.reason END, updated_at = CASE WHEN t.lost THEN now() ELSE "
    "x.updated_at END FROM told t WHERE x.rollout_id = t.rollout_id AND x.device_id = t.device_id "
    "AND (t.lost OR x.online <> t.online)";
// One that had ended goes on: it heard nothing of those who wait.
inline constexpr const char* kRolloutHearsAgain =
    "INSERT INTO device_turns(org_id, device_id) SELECT org_id, device_id FROM rollout_devices "
    "WHERE org_id = $1 AND rollout_id = $2 AND state = 'WAITING' AND NOT wanted";
// Of the rollout's parts those that a query chooses by their places in the table. By the planner's
// statistics a rollout that was just made has no parts, and a join would try each with each.
#define FLOCK_CHOSEN_PARTS(places) \
  "x.ctid = ANY(ARRAY(" places ")) AND x.org_id = $1 AND x.rollout_id = $2"
#define FLOCK_LET_GO                                                                            \
  "UPDATE rollout_devices x SET state = 'PENDING', began_at = now(), updated_at = now() WHERE " \
  "x.state = 'WAITING' AND "
// $4 of the devices that wait begin; with $5 only those that are online. Those that are go first.
inline constexpr const char* kRolloutLetGo = FLOCK_LET_GO FLOCK_CHOSEN_PARTS(
    "SELECT place FROM ((SELECT w.ctid AS place FROM rollout_devices w WHERE w.org_id = $1 AND "
    "w.rollout_id = $2 AND w.state = 'WAITING' AND w.online AND w.stage <= $3::integer ORDER BY "
    "w.stage, w.place LIMIT $4::bigint) UNION ALL (SELECT w.ctid FROM rollout_devices w WHERE "
    "w.org_id = $1 AND w.rollout_id = $2 AND w.state = 'WAITING' AND NOT w.online AND NOT "
    "$5::boolean AND w.stage <= $3::integer ORDER BY w.stage, w.place LIMIT $4::bigint)) waiting "
    "LIMIT $4::bigint");
// The time zone of a device: what somebody said, or what it said of itself
// (domain/maintenance_window.h).
#define FLOCK_TIME_ZONE "coalesce(d.attributes ->> 'time_zone', d.hardware ->> 'time_zone', '')"
// Those of the stages up to $3 that wait, by time zone.
inline constexpr const char* kWaitingByZone =
    "SELECT " FLOCK_TIME_ZONE
    " AS zone, count(*) FILTER (WHERE x.online) AS online, count(*) "
    "FILTER (WHERE NOT x.online) AS offline FROM rollout_devices x JOIN devices d ON d.org_id = "
    "x.org_id AND d.id = x.device_id WHERE x.org_id = $1 AND x.rollout_id = $2 AND x.state = "
    "'WAITING' AND x.stage <= $3::integer GROUP BY 1";
// The same in maintenance windows: of the devices in the time zones $5, and only those that are
// online.
inline constexpr const char* kRolloutLetGoIn = FLOCK_LET_GO FLOCK_CHOSEN_PARTS(
    "SELECT w.ctid FROM rollout_devices w JOIN devices d ON d.org_id = w.org_id AND d.id = "
    "w.device_id WHERE w.org_id = $1 AND w.rollout_id = $2 AND w.state = 'WAITING' AND w.online "
    "AND w.stage <= $3::integer AND " FLOCK_TIME_ZONE
    " = ANY($5::text[]) ORDER BY w.stage, w.place LIMIT $4::bigint");
// Whether a device counts under a limit of devices that are down: at work, and $5 says that those
// that are away or not well are waited for, these too. When they are not, of those at work that are
// away only whoever went within $6 ms counts: it may be about to reboot. Who is gone for good does
// not count.
#define FLOCK_DOWN                                                                               \
  "d.revoked_at IS NULL AND d.removed_at IS NULL AND coalesce($5::boolean AND (NOT x.online OR " \
  "x.unhealthy OR x.restarting) OR x.state IN ('PENDING', 'DELIVERED', 'DOWNLOADING', "          \
  "'STARTING', 'SOAKING', 'ROLLING_BACK') AND (x.online OR d.turned_at > now() - $6::bigint * "  \
  "interval '1 millisecond'), false)"
// Of `parts`, `candidates` are to begin, and `at_once` those of them that would not go down by it;
// the others as far as no more than $4 with the same value of the label $3 are down then: they are
// `free`. Every other part that may be down must be in `parts`. Devices are looked at one by one,
// by the OFFSET, for those parts only: left to the planner, all of the organization's would be.
#define FLOCK_BY_LABEL(parts, candidates, at_once)                                                \
  "(SELECT part, stage, place, online, down, candidate, candidate AND (immediate OR "             \
  "count(*) FILTER (WHERE down OR immediate) OVER (PARTITION BY value) + row_number() OVER "      \
  "(PARTITION BY value, candidate AND NOT immediate ORDER BY stage, place) <= $4::bigint) AS "    \
  "free FROM (SELECT p.*, p.candidate AND (" at_once                                              \
  ") AS immediate FROM (SELECT x.*, x.ctid AS part, "                                             \
  "coalesce(d.labels ->> $3::text, '') AS value, " candidates " AS candidate, " FLOCK_DOWN        \
  " AS down FROM rollout_devices x CROSS JOIN LATERAL (SELECT d.labels, d.attributes, "           \
  "d.hardware, d.revoked_at, d.removed_at, d.turned_at FROM devices d WHERE d.org_id = x.org_id " \
  "AND d.id = x.device_id OFFSET 0) d WHERE x.org_id = $1 AND x.rollout_id = $2 AND " parts       \
  ") p WHERE p.candidate OR p.down) q) r"
// $7: the open stage; $8: the time zones whose windows are open, NULL without windows.
#define FLOCK_WAITING_BY_LABEL                                                       \
  FLOCK_BY_LABEL(                                                                    \
      "x.state NOT IN ('SUPERSEDED', 'SKIPPED') AND (x.state <> 'CONFIRMED' OR NOT " \
      "x.online OR x.unhealthy OR x.restarting)",                                    \
      "x.state = 'WAITING' AND x.online AND x.stage <= $7::integer AND "             \
      "($8::text[] IS NULL OR " FLOCK_TIME_ZONE " = ANY($8::text[]))",               \
      "false")
inline constexpr const char* kWaitingByLabel =
    "SELECT count(*) FILTER (WHERE free) AS free, count(*) FILTER (WHERE NOT free) AS held "
    "FROM " FLOCK_WAITING_BY_LABEL " WHERE candidate";
// $9 of those that may begin do.
inline constexpr const char* kRolloutLetGoByLabel =
    FLOCK_LET_GO FLOCK_CHOSEN_PARTS("SELECT part FROM " FLOCK_WAITING_BY_LABEL
                                    " WHERE free ORDER BY stage, place LIMIT $9::bigint");
#undef FLOCK_WAITING_BY_LABEL
// What makes a device that is taken back begin it.
#define FLOCK_RETURN_SET                                                                      \
  "UPDATE rollout_devices x SET state = 'ROLLING_BACK', desired_version = 0, failure = CASE " \
  "WHEN x.state = 'FAILED' THEN x.reason ELSE x.failure END, updated_at = now() WHERE "
#define FLOCK_TO_RETURN(part)                                           \
  part ".wanted AND " part                                              \
       ".state IN ('PENDING', 'DELIVERED', 'DOWNLOADING', 'STARTING', " \
       "'SOAKING', 'CONFIRMED', 'FAILED')"
// On the way back only those that are there and well wait for others.
#define FLOCK_RETURN_BY_LABEL                                                      \
  FLOCK_BY_LABEL("x.state NOT IN ('SUPERSEDED', 'SKIPPED')", FLOCK_TO_RETURN("x"), \
                 "p.state <> 'CONFIRMED' OR NOT p.online OR p.unhealthy OR p.restarting")
inline constexpr const char* kReturnByLabel =
    "SELECT count(*) FILTER (WHERE free) AS free, count(*) FILTER (WHERE NOT free) AS held "
    "FROM " FLOCK_RETURN_BY_LABEL " WHERE candidate";
inline constexpr const char* kRolloutReturnByLabel =
    FLOCK_RETURN_SET FLOCK_CHOSEN_PARTS("SELECT part FROM " FLOCK_RETURN_BY_LABEL
                                        " WHERE free ORDER BY online DESC, down DESC, place LIMIT "
                                        "$7::bigint");
#undef FLOCK_RETURN_BY_LABEL
#undef FLOCK_BY_LABEL
#undef FLOCK_DOWN
// Devices that still are to run the release of the rollout get their way back.
inline constexpr const char* kRolloutReturn = FLOCK_RETURN_SET FLOCK_CHOSEN_PARTS(
    "SELECT w.ctid FROM rollout_devices w WHERE w.org_id = $1 AND w.rollout_id = $2 "
    "AND " FLOCK_TO_RETURN("w") " ORDER BY w.online DESC, w.place LIMIT $3::bigint");
#undef FLOCK_TO_RETURN
#undef FLOCK_RETURN_SET
#undef FLOCK_LET_GO
#undef FLOCK_CHOSEN_PARTS
// What did not begin never will. What waited for another try has the release still.
inline constexpr const char* kRolloutSkip =
    "UPDATE rollout_devices SET state = CASE WHEN wanted THEN 'FAILED' ELSE 'SKIPPED' END, reason "
    "= CASE WHEN wanted THEN 'it failed, and the rollout ended before it was tried again' ELSE "
    "'the rollout ended before its turn' END, updated_at = now() WHERE org_id = $1 AND rollout_id "
    "= $2 AND (state = 'WAITING' OR (state = 'PENDING' AND desired_version = 0))";
// Whose windows have passed while they were away.
inline constexpr const char* kRolloutLeaveOut =
    "UPDATE rollout_devices SET state = 'SKIPPED', reason = 'it was away while its maintenance "
    "windows were open', updated_at = now() WHERE org_id = $1 AND rollout_id = $2 AND state = "
    "'WAITING'";
// Those that failed and wait for another of $3 tries, $4 ms after the last.
#define FLOCK_RETRIABLE                                                                          \
  " x.org_id = $1 AND x.rollout_id = $2 AND x.state = 'FAILED' AND x.retries < $3::integer AND " \
  "d.org_id = x.org_id AND d.id = x.device_id AND d.revoked_at IS NULL AND d.removed_at IS NULL "
inline constexpr const char* kRetryCounts =
    "SELECT count(*) FILTER (WHERE due) AS due, count(*) FILTER (WHERE NOT due) AS later FROM "
    "(SELECT x.updated_at <= now() - $4::bigint * interval '1 millisecond' AS due FROM "
    "rollout_devices x, devices d WHERE" FLOCK_RETRIABLE ") x";
#define FLOCK_RETRY                                                                              \
  "UPDATE rollout_devices x SET state = 'WAITING', failure = CASE WHEN x.state = 'FAILED' THEN " \
  "x.reason ELSE x.failure END, reason = NULL, desired_version = 0, "                            \
  "unhealthy = false, restarting = false, retries = x.retries + 1, updated_at = now() FROM "     \
  "devices d WHERE"
inline constexpr const char* kRolloutRetry =
    FLOCK_RETRY FLOCK_RETRIABLE "AND x.updated_at <= now() - $4::bigint * interval '1 millisecond'";
// By an operator: whoever failed, and whoever an end kept from its turn, unless a newer deployment
// has it.
inline constexpr const char* kRolloutRetryAll = FLOCK_RETRY
    " x.org_id = $1 AND x.rollout_id = $2 AND x.state IN ('FAILED', 'SKIPPED') AND d.org_id = "
    "x.org_id AND d.id = x.device_id AND d.revoked_at IS NULL AND d.removed_at IS NULL AND NOT "
    "EXISTS (SELECT 1 FROM rollout_devices y WHERE y.org_id = x.org_id AND y.device_id = "
    "x.device_id AND y.rollout_id > x.rollout_id)";
// Why devices failed, the most frequent cause first: what stands before the first colon, with up to
// five devices of each. One that was tried again or taken back has failed too.
inline constexpr const char* kRolloutFailures =
    "SELECT split_part(coalesce(failure, ''), ':', 1) AS cause, count(*) AS devices, "
    "(array_agg(failure ORDER BY updated_at DESC))[1] AS example, flock_ms(min(updated_at)) AS "
    "first_at, flock_ms(max(updated_at)) AS last_at, array_to_json((array_agg(name ORDER BY "
    "updated_at DESC))[1:5])::text AS names FROM (SELECT d.name, x.updated_at, CASE WHEN x.state "
    "IN ('FAILED', 'ROLLBACK_FAILED') THEN x.reason ELSE x.failure END AS failure FROM "
    "rollout_devices x JOIN devices d ON d.org_id = x.org_id AND d.id = x.device_id WHERE x.org_id "
    "= $1 AND x.rollout_id = $2 AND (x.state IN ('FAILED', 'ROLLBACK_FAILED') OR x.failure IS NOT "
    "NULL)) x GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 100";
// Only while a device is there does its time pass: $3 ms since it said something or came.
inline constexpr const char* kRolloutTimeouts =
    "UPDATE rollout_devices x SET state = CASE WHEN x.state = 'ROLLING_BACK' THEN "
    "'ROLLBACK_FAILED' ELSE 'FAILED' END, reason = 'the device did not confirm in time', "
    "updated_at = now() FROM devices d WHERE x.org_id = $1 AND x.rollout_id = $2 AND x.state IN "
    "('DELIVERED', 'DOWNLOADING', 'STARTING', 'SOAKING', 'ROLLING_BACK') AND x.desired_version > 0 "
    "AND x.online AND x.updated_at < now() - $3::bigint * interval '1 millisecond' AND d.org_id = "
    "x.org_id AND d.id = x.device_id AND d.online AND coalesce(d.turned_at < now() - $3::bigint * "
    "interval '1 "
    "millisecond', true)";

// --- The part of one device
// $1 of those that have begun, or go back, and have no desired state for it yet.
inline constexpr const char* kRolloutToMake =
    "SELECT x.org_id, x.rollout_id, x.device_id FROM rollout_devices x WHERE x.desired_version = 0 "
    "AND x.state IN ('PENDING', 'ROLLING_BACK') ORDER BY x.began_at LIMIT $1::bigint";
// What a device ran before anything that it did not prove. `y` is its part in the rollout that gave
// it what it is to run now.
#define FLOCK_PROVEN_RELEASE                                                                  \
  "CASE WHEN coalesce(y.state, 'CONFIRMED') IN ('CONFIRMED', 'ROLLING_BACK', 'ROLLED_BACK') " \
  "THEN d.desired_release_id ELSE y.previous_release_id END"
#define FLOCK_LATEST_PART                                                                       \
  "LEFT JOIN rollout_devices y ON y.org_id = d.org_id AND y.rollout_id = d.desired_rollout_id " \
  "AND y.device_id = d.id "
// Of the devices $3, again inside the transaction, so that a second leader cannot give out the same
// version. Without a release, the rollout leaves a device what it has.
inline constexpr const char* kRolloutMakeLock =
    "SELECT x.state, x.retries, d.id, d.fleet_id, d.architecture, d.variant, d.desired_version, "
    "x.previous_release_id, p.soak_ms, p.failure_timeout_ms, p.id AS deployment_id, "
    "p.host_command, b.version AS back_version, b.workload AS back_workload, b.deleted_at IS NOT "
    "NULL AS back_deleted, l.version AS release_version, l.workload, l.id AS release_id FROM "
    "rollout_devices x JOIN devices d ON d.org_id = x.org_id AND d.id = x.device_id JOIN rollouts "
    "r ON r.org_id = x.org_id AND r.id = x.rollout_id JOIN deployments p ON p.org_id = r.org_id "
    "AND p.id = r.deployment_id " FLOCK_LATEST_PART
    "LEFT JOIN releases l ON l.org_id = r.org_id AND l.id = "
    "coalesce(r.release_id, " FLOCK_PROVEN_RELEASE
    ") LEFT JOIN releases b ON b.org_id = x.org_id AND b.id = x.previous_release_id WHERE x.org_id "
    "= $1 AND x.rollout_id = $2 AND x.device_id = ANY($3::uuid[]) AND x.desired_version = 0 AND "
    "x.state IN ('PENDING', 'ROLLING_BACK') AND d.removed_at IS NULL AND d.revoked_at IS NULL "
    "ORDER BY x.device_id FOR UPDATE OF x, d";
// Before the devices $3 want it, in the versions $4: what they have proven is where they go back
// to. At another try a device wants this release already.
inline constexpr const char* kRolloutDevicesMade =
    "UPDATE rollout_devices x SET desired_version = n.version, wanted = true, online = d.online, "
    "previous_release_id = CASE WHEN x.state = 'PENDING' AND d.desired_rollout_id IS DISTINCT FROM "
    "x.rollout_id THEN " FLOCK_PROVEN_RELEASE
    " ELSE x.previous_release_id END, updated_at = now() FROM unnest($3::uuid[], $4::bigint[]) AS "
    "n(device, version) JOIN devices d ON d.org_id = $1 AND d.id = n.device " FLOCK_LATEST_PART
    "WHERE x.org_id = $1 AND x.rollout_id = $2 AND x.device_id = ANY($3::uuid[]) AND x.device_id = "
    "n.device";
#undef FLOCK_PROVEN_RELEASE
#undef FLOCK_LATEST_PART
// Each of the devices $3 for its reason in $4.
inline constexpr const char* kRolloutDevicesFailed =
    "UPDATE rollout_devices x SET state = CASE WHEN x.state = 'ROLLING_BACK' THEN "
    "'ROLLBACK_FAILED' ELSE 'FAILED' END, reason = n.reason, updated_at = now() FROM "
    "unnest($3::uuid[], $4::text[]) AS n(device, reason) WHERE x.org_id = $1 AND x.rollout_id = $2 "
    "AND x.device_id = n.device";
// A newcomer begins at once; but while the rollout is open, its limits, windows and pauses are for
// newcomers too.
inline constexpr const char* kRolloutNewcomer =
    "INSERT INTO rollout_devices(org_id, rollout_id, device_id, state, online, place, stage, "
    "began_at) SELECT $1, r.id, d.id, CASE WHEN r.ended_at IS NULL THEN 'WAITING' ELSE 'PENDING' "
    "END, d.online, 1000000000, r.stage, CASE WHEN r.ended_at IS NOT NULL THEN now() END FROM "
    "rollouts r JOIN devices d ON d.org_id = r.org_id AND d.id = $3::uuid WHERE r.org_id = $1 AND "
    "r.id = $2 ON CONFLICT (rollout_id, device_id) DO NOTHING";
inline constexpr const char* kSupersede =
    "UPDATE rollout_devices x SET state = 'SUPERSEDED', reason = 'a newer deployment took the "
    "device', updated_at = now() FROM rollouts r"
    " WHERE x.org_id = $1 AND x.device_id = ANY($2::uuid[]) AND x.rollout_id <> $3 AND r.id = "
    "x.rollout_id AND "
    "r.ended_at IS NULL AND x.state NOT IN ('CONFIRMED', 'FAILED', 'SUPERSEDED', 'ROLLED_BACK', "
    "'ROLLBACK_FAILED', 'SKIPPED')";
// What they ran for another rollout, nobody can take back any more.
inline constexpr const char* kWantedElsewhere =
    "UPDATE rollout_devices SET wanted = false WHERE org_id = $1 AND device_id = ANY($2::uuid[]) "
    "AND rollout_id <> $3 AND wanted";
// What the devices $2 are to run for the rollout $3: versions, releases ('': none), and desired
// states in base64.
inline constexpr const char* kDevicesWant =
    "UPDATE devices d SET desired_version = n.version, desired_release_id = NULLIF(n.release, "
    "'')::uuid, desired_rollout_id = $3, desired = decode(n.desired, 'base64'), desired_stale = "
    "false FROM unnest($2::uuid[], $4::bigint[], $5::text[], $6::text[]) AS n(id, version, "
    "release, desired) WHERE d.org_id = $1 AND d.id = ANY($2::uuid[]) AND d.id = n.id";
inline constexpr const char* kUnpublished =
    "SELECT id, org_id, desired_version, desired, desired_rollout_id FROM devices WHERE "
    "published_version < desired_version AND revoked_at IS NULL AND desired IS NOT NULL LIMIT "
    "$1::bigint";
// Organizations, devices and versions.
inline constexpr const char* kPublished =
    "UPDATE devices d SET published_version = greatest(d.published_version, n.version) FROM "
    "unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS n(org, device, version) WHERE d.org_id = "
    "n.org AND d.id = n.device AND d.id = ANY($2::uuid[])";
// Devices ($2) that tell of an older version ($3) than the one they are to run.
inline constexpr const char* kRepublish =
    "UPDATE devices d SET published_version = 0 FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) "
    "AS n(org, device, version) WHERE d.org_id = n.org AND d.id = n.device AND d.id = "
    "ANY($2::uuid[]) AND d.desired_version > n.version AND d.published_version = d.desired_version";
// Organizations, devices and versions, and the rollouts that these are of.
inline constexpr const char* kRolloutDevicesDelivered =
    "UPDATE rollout_devices x SET state = CASE WHEN x.state = 'PENDING' THEN 'DELIVERED' ELSE "
    "x.state END, updated_at = now() FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::uuid[]) "
    "AS n(org, device, version, rollout) WHERE x.org_id = n.org AND x.rollout_id = n.rollout AND "
    "x.device_id = n.device AND x.device_id = ANY($2::uuid[]) AND x.state IN ('PENDING', "
    "'ROLLING_BACK') AND x.desired_version = n.version";
// What reports say about devices' parts: organizations, devices and versions ($1 to $3), the states
// that they have by them ($4), reasons ($5), and whether services are unhealthy ($6) or restart
// ($7). On the way back the same words mean the way back. Answers what was new. In one order, so
// that two who are told of the same devices do not wait for each other.
inline constexpr const char* kRolloutDeviceStates =
    "WITH told AS (SELECT x.org_id, x.rollout_id, x.device_id, coalesce(n.reason, '') AS reason, "
    "n.unhealthy, n.restarting, CASE WHEN x.state IN ('SUPERSEDED', 'SKIPPED', 'ROLLED_BACK') THEN "
    "x.state WHEN x.state IN ('ROLLING_BACK', 'ROLLBACK_FAILED') THEN CASE n.state WHEN "
    "'CONFIRMED' THEN 'ROLLED_BACK' WHEN 'FAILED' THEN 'ROLLBACK_FAILED' ELSE x.state END WHEN "
    "x.state = 'CONFIRMED' OR (x.state = 'FAILED' AND n.state <> 'CONFIRMED') THEN x.state ELSE "
    "n.state END AS state FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], "
    "$5::text[], $6::boolean[], $7::boolean[]) AS n(org, device, version, state, reason, "
    "unhealthy, restarting) JOIN rollout_devices x ON x.org_id = n.org AND x.device_id = n.device "
    "WHERE x.device_id = ANY($2::uuid[]) AND x.desired_version = n.version AND x.desired_version > "
    "0 ORDER BY x.rollout_id, x.device_id FOR UPDATE OF x) UPDATE rollout_devices x SET state = "
    "t.state, reason = CASE WHEN t.state <> x.state OR t.state NOT IN ('SUPERSEDED', 'SKIPPED', "
    "'ROLLED_BACK', 'ROLLBACK_FAILED', 'ROLLING_BACK', 'CONFIRMED', 'FAILED') THEN "
    "nullif(t.reason, '') ELSE x.reason END, unhealthy = t.unhealthy, restarting = t.restarting, "
    "updated_at = CASE WHEN t.state <> x.state OR t.state NOT IN ('CONFIRMED', 'FAILED') THEN "
    "now() ELSE x.updated_at END FROM told t WHERE x.org_id = t.org_id AND x.rollout_id = "
    "t.rollout_id AND x.device_id = t.device_id AND ((x.state, x.unhealthy, x.restarting) <> "
    "(t.state, t.unhealthy, t.restarting) OR (t.state NOT IN ('SUPERSEDED', 'SKIPPED', "
    "'ROLLED_BACK', 'ROLLBACK_FAILED', 'ROLLING_BACK', 'CONFIRMED', 'FAILED') AND "
    "coalesce(x.reason, '') <> t.reason)) RETURNING x.org_id, x.rollout_id";
// How far the host commands of devices are ($4, JSON), at the versions that they tell of. Answers
// what was new, in the same order.
inline constexpr const char* kRolloutDeviceMachines =
    "WITH told AS (SELECT x.org_id, x.rollout_id, x.device_id, n.said::jsonb AS said FROM "
    "unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[]) AS n(org, device, version, said) "
    "JOIN "
    "rollout_devices x ON x.org_id = n.org AND x.device_id = n.device WHERE x.device_id = "
    "ANY($2::uuid[]) AND x.desired_version = n.version AND x.desired_version > 0 AND "
    "x.host_command "
    "IS DISTINCT FROM n.said::jsonb ORDER BY x.rollout_id, x.device_id FOR UPDATE OF x) UPDATE "
    "rollout_devices x SET host_command = t.said FROM told t WHERE x.org_id = t.org_id AND "
    "x.rollout_id = t.rollout_id AND x.device_id = t.device_id RETURNING x.org_id, x.rollout_id";
// What devices ($2) are to run, where that is the version ($3) that they tell of.
inline constexpr const char* kRolloutDesired =
    "SELECT d.id, d.desired FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS n(org, device, "
    "version) JOIN devices d ON d.org_id = n.org AND d.id = n.device WHERE d.id = ANY($2::uuid[]) "
    "AND d.desired_version = n.version";
// $3: the device behind which the page begins.
inline constexpr const char* kRolloutUnsettled =
    "SELECT device_id FROM rollout_devices WHERE org_id = $1 AND rollout_id = $2 AND device_id > "
    "$3::uuid AND state NOT IN ('WAITING', 'CONFIRMED', 'SUPERSEDED', 'SKIPPED', 'ROLLED_BACK') "
    "ORDER BY device_id LIMIT 1000";

// --- What people see of it
#define FLOCK_IN_STATE(state, name) \
  ", coalesce(sum(x.count) FILTER (WHERE x.state = '" state "'), 0)::bigint AS " name
#define FLOCK_ROLLOUT_COLUMNS \
  "SELECT r.id, r.deployment_id, r.fleet_id, r.state, r.reason, flock_ms(r.created_at) AS " \
  "created_at, flock_ms(r.ended_at) AS ended_at, r.stage, array_to_string(r.stage_ends, ',') " \
  "AS stage_ends, r.gates, p.strategy, p.host_command," \
  " l.id AS release_id, l.version AS release_version, coalesce(sum(x.count), 0)::bigint AS total" \
  FLOCK_IN_STATE("WAITING", "waiting") \
  FLOCK_IN_STATE("PENDING", "pending") \
  FLOCK_IN_STATE("DELIVERED", "delivered") \
  FLOCK_IN_STATE("DOWNLOADING", "downloading") \
  FLOCK_IN_STATE("STARTING", "starting") \
  FLOCK_IN_STATE("SOAKING", "soaking") \
  FLOCK_IN_STATE("CONFIRMED", "confirmed") \
  FLOCK_IN_STATE("FAILED", "failed") \
  FLOCK_IN_STATE("SUPERSEDED", "superseded") \
  FLOCK_IN_STATE("SKIPPED", "skipped") \
  FLOCK_IN_STATE("ROLLING_BACK", "rolling_back") \
  FLOCK_IN_STATE("ROLLED_BACK", "rolled_back") \
  FLOCK_IN_STATE("ROLLBACK_FAILED", "rollback_failed") \
  " FROM rollouts r LEFT JOIN releases l ON l.id = r.release_id JOIN deployments p ON p.id = " \
  "r.deployment_id LEFT JOIN rollout_tallies x ON x.org_id = r.org_id AND x.rollout_id = r.id "
inline constexpr const char* kRolloutList = FLOCK_ROLLOUT_COLUMNS
    "WHERE r.org_id = $1 AND ($2 = '' OR r.id::text < $2) GROUP BY r.id, l.id, p.id ORDER BY "
    "r.id::text DESC LIMIT $3::bigint";
inline constexpr const char* kRolloutGet =
    FLOCK_ROLLOUT_COLUMNS "WHERE r.org_id = $1 AND r.id = $2 GROUP BY r.id, l.id, p.id";
inline constexpr const char* kRolloutDevices =
    "SELECT x.device_id, d.name, d.online, x.state, x.reason, x.failure, x.retries, x.stage, "
    "x.desired_version, x.host_command, "
    "flock_ms(x.began_at) AS began_at, flock_ms(x.updated_at) AS updated_at FROM rollout_devices x "
    "JOIN devices d ON d.id = x.device_id"
    " WHERE x.org_id = $1 AND x.rollout_id = $2 AND x.device_id::text > $3 ORDER BY "
    "x.device_id::text LIMIT $4::bigint";

// --- Newcomers: devices that came after their fleet's deployment and have nothing yet
// Those that have nothing may be as many as there are devices: a part of them at a time, the one
// behind $1 first. This is the part's last.
inline constexpr const char* kLatecomersEnd =
    "SELECT id FROM (SELECT id FROM devices WHERE desired_release_id IS NULL AND revoked_at IS "
    "NULL AND removed_at IS NULL AND id > $1::uuid ORDER BY id LIMIT 5000) part ORDER BY id DESC "
    "LIMIT 1";
// One that its rollout knows already cannot run the release, one that another rollout is about to
// give something gets that, and a release that was found invalid goes to nobody any more.
#define FLOCK_LATECOMER                                                                           \
  "FROM devices d JOIN fleets f ON f.id = d.fleet_id JOIN deployments p ON p.id = "               \
  "f.deployment_id WHERE d.desired_release_id IS NULL AND d.revoked_at IS NULL AND d.removed_at " \
  "IS NULL AND p.rollout_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM rollout_devices x WHERE "   \
  "x.org_id = d.org_id AND x.device_id = d.id AND (x.rollout_id = p.rollout_id OR (x.state IN "   \
  "('WAITING', 'PENDING') AND x.desired_version = 0))) AND NOT EXISTS (SELECT 1 FROM releases l " \
  "WHERE l.id = p.release_id AND l.state = 'INVALID')"
// Behind $1, up to $2.
inline constexpr const char* kLatecomers =
    "SELECT d.id, d.org_id, p.rollout_id " FLOCK_LATECOMER
    " AND d.id > $1::uuid AND d.id <= $2::uuid AND NOT d.selection_stale";
// Those among $2 that are new or were changed: nobody waits until its part has its turn.
inline constexpr const char* kLatecomersAmong =
    "SELECT d.id, d.org_id, p.rollout_id " FLOCK_LATECOMER
    " AND d.org_id = $1 AND d.id = ANY($2::uuid[])";
#undef FLOCK_LATECOMER

}  // namespace flock::postgres::sql

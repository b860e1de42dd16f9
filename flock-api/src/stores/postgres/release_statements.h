// SPDX-License-Identifier: Apache-2.0
// SQL of releases: their life, their list, and which of them may go.
#pragma once

namespace flock::postgres::sql {

// A deleted release is a stone for the rollouts that name it, and nothing else sees it.
#define FLOCK_RELEASE_COLUMNS                                                                  \
  "SELECT r.id, r.version, r.note, r.state, r.invalid_reason, array_to_json(r.tags)::text AS " \
  "tags, r.compose, r.workload, r.digest, r.notes, flock_ms(r.created_at) AS created_at, "     \
  "flock_ms(r.finalized_at) AS finalized_at"
#define FLOCK_RELEASES FLOCK_RELEASE_COLUMNS " FROM releases r "
#define FLOCK_RELEASE_NAMED \
  "WHERE r.org_id = $1 AND (r.id::text = $2 OR r.version = $2) AND r.deleted_at IS NULL"
// Until the end of the transaction nobody else numbers a release of the organization.
inline constexpr const char* kReleaseNumberLock =
    "SELECT pg_advisory_xact_lock(hashtextextended($1, 2)) AS locked";
inline constexpr const char* kReleaseNextVersion =
    "SELECT coalesce(max(version::bigint), 0) + 1 AS next FROM releases WHERE org_id = $1 AND "
    "version ~ '^[0-9]{1,9}$'";
inline constexpr const char* kReleaseInsert =
    "INSERT INTO releases(id, org_id, version, note, compose, workload, digest, notes, tags, "
    "state, finalized_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text[], $10, CASE WHEN $10 = "
    "'DRAFT' THEN NULL ELSE now() END)";
inline constexpr const char* kReleaseGet = FLOCK_RELEASES FLOCK_RELEASE_NAMED;
// Whoever decides about a release holds it: to deploy it, so that it cannot go away meanwhile; to
// change it, so that nobody deploys it meanwhile.
inline constexpr const char* kReleaseShare = FLOCK_RELEASES FLOCK_RELEASE_NAMED " FOR SHARE";
inline constexpr const char* kReleaseLock = FLOCK_RELEASES FLOCK_RELEASE_NAMED " FOR UPDATE";
// More conditions, order and limit follow (release_routes.cpp); $1..$4 are these.
inline constexpr const char* kReleaseListColumns = FLOCK_RELEASE_COLUMNS;
inline constexpr const char* kReleaseListFrom =
    " FROM releases r WHERE r.org_id = $1 AND r.deleted_at IS NULL AND ($2 = '' OR r.state = $2) "
    "AND ($3 = '' OR r.tags @> ARRAY[$3]) AND starts_with(r.version, $4)";
inline constexpr const char* kReleaseDescribe =
    "UPDATE releases SET note = $3, tags = $4::text[] WHERE org_id = $1 AND id = $2";
inline constexpr const char* kReleaseReplace =
    "UPDATE releases SET compose = $3, workload = $4, digest = $5, notes = $6 WHERE org_id = $1 "
    "AND id = $2 AND state = 'DRAFT'";
inline constexpr const char* kReleaseFinalize =
    "UPDATE releases SET state = 'FINAL', finalized_at = now() WHERE org_id = $1 AND id = $2 AND "
    "state = 'DRAFT'";
inline constexpr const char* kReleaseInvalidate =
    "UPDATE releases SET state = 'INVALID', invalid_reason = $3 WHERE org_id = $1 AND id = $2";
// What still needs a release. Run it in a scope that sees every fleet, with the release locked.
inline constexpr const char* kReleaseUse =
    "SELECT (SELECT count(*) FROM devices d WHERE d.org_id = $1 AND d.desired_release_id = $2 AND "
    "d.removed_at IS NULL) AS devices,"
    " (SELECT count(*) FROM fleets f JOIN deployments p ON p.org_id = f.org_id AND p.id = "
    "f.deployment_id WHERE f.org_id = $1 AND p.release_id = $2) AS fleets,"
    " (SELECT count(*) FROM deployments p LEFT JOIN rollouts o ON o.id = p.rollout_id WHERE "
    "p.org_id = $1 AND p.release_id = $2 AND (p.state = 'PENDING' OR (p.stands AND p.displaced_by "
    "IS NULL) OR (o.id IS NOT NULL AND o.ended_at IS NULL))) AS deployments";
inline constexpr const char* kReleaseDelete =
    "UPDATE releases SET deleted_at = now(), compose = '', workload = '{\"services\":[]}', tags = "
    "'{}' WHERE org_id = $1 AND id = $2 AND deleted_at IS NULL";

inline constexpr const char* kRetentionGet =
    "SELECT keep_last, keep_days FROM release_retention WHERE org_id = $1";
inline constexpr const char* kRetentionPut =
    "INSERT INTO release_retention(org_id, keep_last, keep_days) VALUES ($1, $2::bigint, "
    "$3::bigint) ON CONFLICT (org_id) DO UPDATE SET keep_last = excluded.keep_last, keep_days = "
    "excluded.keep_days";
inline constexpr const char* kRetentionOrganizations =
    "SELECT org_id FROM release_retention WHERE coalesce(keep_last, keep_days) IS NOT NULL ORDER "
    "BY org_id";
// Beyond every rule that is set, and neither wanted by a device now, nor what a device wanted
// before what it wants now (the way back), nor a fleet's own, nor under way.
inline constexpr const char* kRetentionExpired =
    "WITH needed AS ("
    " SELECT d.desired_release_id AS id FROM devices d WHERE d.org_id = $1 AND d.removed_at IS NULL"
    " UNION SELECT b.release_id FROM devices d CROSS JOIN LATERAL (SELECT o.release_id FROM "
    "rollout_devices x JOIN rollouts o ON o.id = x.rollout_id WHERE x.device_id = d.id AND "
    "x.desired_version > 0 AND o.release_id IS DISTINCT FROM d.desired_release_id ORDER BY "
    "x.desired_version DESC LIMIT 1) b WHERE d.org_id = $1 AND d.removed_at IS NULL"
    " UNION SELECT p.release_id FROM fleets f JOIN deployments p ON p.id = f.deployment_id WHERE "
    "f.org_id = $1"
    " UNION SELECT p.release_id FROM deployments p LEFT JOIN rollouts o ON o.id = p.rollout_id "
    "WHERE p.org_id = $1 AND (p.state = 'PENDING' OR (p.stands AND p.displaced_by IS NULL) OR "
    "(o.id "
    "IS NOT NULL AND o.ended_at IS NULL))),"
    " ranked AS (SELECT id, created_at, row_number() OVER (ORDER BY id DESC) AS place FROM "
    "releases WHERE org_id = $1 AND deleted_at IS NULL AND state <> 'DRAFT')"
    " SELECT a.id FROM ranked a JOIN release_retention k ON k.org_id = $1 WHERE "
    "(k.keep_last IS NULL OR a.place > k.keep_last) AND (k.keep_days IS NULL OR a.created_at < "
    "now() - k.keep_days * interval '1 day') AND coalesce(k.keep_last, k.keep_days) IS NOT NULL "
    "AND NOT EXISTS (SELECT FROM needed n WHERE n.id = a.id) ORDER BY a.id LIMIT $2::bigint";

}  // namespace flock::postgres::sql

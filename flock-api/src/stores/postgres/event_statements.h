// SPDX-License-Identifier: Apache-2.0
// Statements of customer events: what the things are called that an event is about. Each takes
// organizations and ids, pair by pair: what belongs to another organization is not found.
#pragma once

namespace flock::postgres::sql {

// Removed devices too, with the fleet that they were in last.
inline constexpr const char* kSubjectDevices =
    "SELECT d.org_id, d.id, d.name, d.labels::text AS labels, f.id AS fleet_id, f.slug AS "
    "fleet_slug FROM unnest($1::uuid[], $2::uuid[]) AS n(org_id, id) JOIN devices d ON d.org_id = "
    "n.org_id AND d.id = n.id LEFT JOIN fleets f ON f.org_id = d.org_id AND f.id = "
    "coalesce(d.fleet_id, d.removed_from_fleet_id)";
inline constexpr const char* kSubjectRollouts =
    "SELECT r.org_id, r.id, r.deployment_id, r.release_id, l.version AS release_version, f.id AS "
    "fleet_id, f.slug AS fleet_slug FROM unnest($1::uuid[], $2::uuid[]) AS n(org_id, id) JOIN "
    "rollouts r ON r.org_id = n.org_id AND r.id = n.id LEFT JOIN releases l ON l.org_id = r.org_id "
    "AND "
    "l.id = r.release_id LEFT JOIN fleets f ON f.org_id = r.org_id AND f.id = r.fleet_id";
inline constexpr const char* kSubjectDeployments =
    "SELECT p.org_id, p.id, p.id AS deployment_id, p.release_id, l.version AS release_version, "
    "f.id AS fleet_id, f.slug AS fleet_slug FROM unnest($1::uuid[], $2::uuid[]) AS n(org_id, id) "
    "JOIN deployments p ON p.org_id = n.org_id AND p.id = n.id LEFT JOIN releases l ON l.org_id = "
    "p.org_id AND l.id = p.release_id LEFT JOIN fleets f ON f.org_id = p.org_id AND f.id = "
    "p.fleet_id";

}  // namespace flock::postgres::sql

// SPDX-License-Identifier: Apache-2.0
#include "stores/postgres/selection_query.h"

#include "stores/postgres/device_where.h"
#include "stores/postgres/selection_statements.h"

namespace flock::postgres {
namespace {

std::string among(DeviceWhere& builder, const domain::Selector& selector) {
  std::string out;
  if (selector.fleet) out += " AND d.fleet_id = " + builder.bind(*selector.fleet) + "::uuid";
  if (selector.devices) out += " AND d.id = ANY(" + builder.list(*selector.devices) + "::uuid[])";
  return out;
}

// Who is meant, without a look at other rollouts.
std::string selected(DeviceWhere& builder, const domain::Selector& selector, TimePoint now) {
  const std::string where = builder.where(selector.filter, now);
  return where + " AND d.revoked_at IS NULL" + among(builder, selector);
}

std::string parts_of(const std::string& rollouts) {
  return "FROM rollout_devices x WHERE x.org_id = d.org_id AND x.device_id = d.id AND "
         "x.rollout_id = ANY(" +
         rollouts + "::uuid[]) AND " FLOCK_PART_IS_OPEN;
}

std::string not_held(DeviceWhere& builder, const Selection& selection) {
  if (selection.held_by.empty()) return "";
  return " AND NOT EXISTS (SELECT " + parts_of(builder.list(selection.held_by)) + ")";
}

// Fleet and list, each device with why it is not in the selection.
std::string judged(DeviceWhere& builder, const Selection& selection, TimePoint now) {
  const std::string where = builder.where({}, now) + among(builder, selection.selector);
  const std::string matches = builder.condition(selection.selector.filter, now);
  const std::string held = selection.held_by.empty()
                               ? ""
                               : " WHEN EXISTS (SELECT " +
                                     parts_of(builder.list(selection.held_by)) +
                                     ") THEN 'CONFLICT'";
  return "SELECT d.*, CASE WHEN d.revoked_at IS NOT NULL THEN 'REVOKED' WHEN (" + matches +
         ") IS NOT TRUE THEN 'FILTER'" + held + " ELSE '' END AS why FROM devices d " + where;
}

// What was meant for the device after this deployment was made stays with it.
std::string has_nothing_newer(const std::string& rollout) {
  return " AND (d.desired_release_id IS NULL OR NOT EXISTS (SELECT FROM rollouts n, rollouts mine "
         "WHERE n.org_id = d.org_id AND n.id = d.desired_rollout_id AND mine.org_id = d.org_id AND "
         "mine.id = " +
         rollout + "::uuid AND n.deployment_id > mine.deployment_id))";
}

// Each value's devices get places at equal distances, beginning at a random one, so that every
// share of the whole is that share of each value, give or take one device.
std::string spread_places(const std::string& devices, const std::string& rollout,
                          const std::string& label) {
  return "SELECT s.org_id, s.id, s.online, row_number() OVER (ORDER BY (s.rank + s.start) / "
         "s.size, s.hash, "
         "s.id) - 1 AS place FROM (SELECT v.org_id, v.id, v.online, v.hash, row_number() OVER "
         "(PARTITION BY "
         "v.value ORDER BY v.hash, v.id) - 1 AS rank, count(*) OVER (PARTITION BY v.value) AS "
         "size, (hashtextextended(" +
         rollout +
         "::text || v.value, 1) & 1048575) / 1048576::double precision AS start FROM (SELECT "
         "d.org_id, d.id, d.online, hashtextextended(" +
         rollout + "::text || d.id::text, 0) AS hash, coalesce(d.labels ->> " + label +
         "::text, '') AS value FROM devices d " + devices + ") v) s";
}

std::string chance_places(const std::string& devices, const std::string& rollout) {
  return "SELECT d.org_id, d.id, d.online, row_number() OVER (ORDER BY hashtextextended(" +
         rollout + "::text || d.id::text, 0), d.id) - 1 AS place FROM devices d " + devices;
}

}  // namespace

Statement selection_count(const Selection& selection, TimePoint now) {
  DeviceWhere builder(selection.org);
  const std::string devices = selected(builder, selection.selector, now);
  const std::string held = selection.held_by.empty()
                               ? "0::bigint"
                               : "count(*) FILTER (WHERE EXISTS (SELECT " +
                                     parts_of(builder.list(selection.held_by)) + "))";
  return {"SELECT count(*) AS count, " + held + " AS conflicting FROM devices d " + devices,
          builder.take()};
}

Statement selection_conflicts(const Selection& selection, TimePoint now) {
  DeviceWhere builder(selection.org);
  const std::string devices = selected(builder, selection.selector, now);
  const std::string theirs =
      "FROM devices d JOIN rollout_devices x ON x.org_id = d.org_id AND x.device_id = d.id AND "
      "x.rollout_id = r.id AND " FLOCK_PART_IS_OPEN " " +
      devices;
  return {
      "SELECT r.id AS rollout_id, c.count, (SELECT json_agg(n.name)::text FROM (SELECT d.name " +
          theirs + " LIMIT 5) n) AS names FROM unnest(" + builder.list(selection.held_by) +
          "::uuid[]) AS r(id) CROSS JOIN LATERAL (SELECT count(*) AS count " + theirs +
          ") c WHERE c.count > 0 ORDER BY r.id",
      builder.take()};
}

Statement selection_survey(const Selection& selection, const std::optional<std::string>& release,
                           TimePoint now) {
  DeviceWhere builder(selection.org);
  const std::string devices = judged(builder, selection, now);
  return {
      "SELECT d.why, d.architecture, d.variant, count(*) AS count, count(*) FILTER (WHERE "
      "d.online) AS online, count(*) FILTER (WHERE d.desired_release_id = " +
          (release ? builder.bind(*release) : "NULL") +
          "::uuid) AS have_it, bit_xor(hashtextextended(d.id::text, 1)) AS one, "
          "bit_xor(hashtextextended(d.id::text, 2)) AS two FROM (" +
          devices + ") d GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
      builder.take()};
}

Statement selection_examples(const Selection& selection, const std::string& why, TimePoint now) {
  DeviceWhere builder(selection.org);
  const std::string devices = judged(builder, selection, now);
  return {"SELECT d.name FROM (" + devices + ") d WHERE d.why = " + builder.bind(why) +
              "::text LIMIT 5",
          builder.take()};
}

Statement rollout_assign(const Selection& selection, const std::string& rollout,
                         const std::string& spread_over, TimePoint now) {
  DeviceWhere builder(selection.org);
  const std::string mine = builder.bind(rollout);
  const std::string devices =
      selected(builder, selection.selector, now) + not_held(builder, selection);
  const std::string places = spread_over.empty()
                                 ? chance_places(devices, mine)
                                 : spread_places(devices, mine, builder.bind(spread_over));
  // Devices that came since they were counted are in the last stage. In the order of ids: the
  // indexes grow at one place at a time.
  return {
      "INSERT INTO rollout_devices(org_id, rollout_id, device_id, state, online, place, stage) "
      "SELECT o.org_id, r.id, o.id, 'WAITING', o.online, o.place, least(width_bucket(o.place, "
      "r.stage_ends), array_length(r.stage_ends, 1) - 1) FROM (" +
          places + ") o JOIN rollouts r ON r.org_id = o.org_id AND r.id = " + mine +
          "::uuid ORDER BY o.id",
      builder.take()};
}

Statement rollout_adopt(const Selection& selection, const std::string& rollout, TimePoint now) {
  DeviceWhere builder(selection.org);
  const std::string mine = builder.bind(rollout);
  const std::string devices = selected(builder, selection.selector, now);
  const std::string joining = not_held(builder, selection) + has_nothing_newer(mine);
  // Those that are new to it first: few, however many it has. By the OFFSET each is looked for in
  // the index: by the planner's statistics a rollout that was just made has no parts, and a join
  // would try each device with each of them.
  return {
      "WITH fresh AS MATERIALIZED (SELECT d.org_id, d.id, d.online, d.desired_release_id, "
      "d.desired_rollout_id FROM devices d " +
          devices +
          " AND NOT EXISTS (SELECT FROM rollout_devices e WHERE e.org_id = d.org_id AND "
          "e.rollout_id = " +
          mine +
          "::uuid AND e.device_id = d.id OFFSET 0)) INSERT INTO rollout_devices(org_id, "
          "rollout_id, "
          "device_id, state, online, place, stage) SELECT d.org_id, r.id, d.id, 'WAITING', "
          "d.online, 1000000000, "
          "r.stage FROM fresh d JOIN rollouts r ON r.org_id = d.org_id AND r.id = " +
          mine + "::uuid WHERE true" + joining + " ON CONFLICT DO NOTHING",
      builder.take()};
}

Statement rollout_newcomers(const Selection& selection, const std::string& rollout,
                            const std::vector<std::string>& ids, TimePoint now) {
  DeviceWhere builder(selection.org);
  const std::string mine = builder.bind(rollout);
  const std::string matched = selected(builder, selection.selector, now) + " AND d.id = ANY(" +
                              builder.list(ids) + "::uuid[])";
  const std::string joining = not_held(builder, selection) + has_nothing_newer(mine);
  // What the whole fleet is to run comes before, when it has more weight or is newer.
  const std::string fleet_first =
      "EXISTS (SELECT FROM fleets f JOIN deployments q ON q.org_id = f.org_id AND q.id = "
      "f.deployment_id, rollouts r JOIN deployments p ON p.org_id = r.org_id AND p.id = "
      "r.deployment_id WHERE f.org_id = d.org_id AND f.id = d.fleet_id AND r.org_id = d.org_id AND "
      "r.id = " +
      mine + "::uuid AND (q.priority, q.id) > (p.priority, p.id))";
  return {"WITH matched AS (SELECT d.* FROM devices d " + matched + " AND NOT " + fleet_first +
              "), joined AS (INSERT INTO rollout_devices(org_id, rollout_id, device_id, state, "
              "online, place, stage, began_at) SELECT d.org_id, r.id, d.id, CASE WHEN r.ended_at "
              "IS NULL "
              "THEN 'WAITING' ELSE 'PENDING' END, d.online, 1000000000, r.stage, CASE WHEN "
              "r.ended_at IS "
              "NOT NULL THEN now() END FROM matched d JOIN rollouts r ON r.org_id = d.org_id AND "
              "r.id = " +
              mine + "::uuid WHERE true" + joining +
              " ON CONFLICT DO NOTHING) SELECT id FROM matched",
          builder.take()};
}

}  // namespace flock::postgres

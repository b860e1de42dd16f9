// SPDX-License-Identifier: Apache-2.0
#include "stores/postgres/device_query.h"

#include "stores/postgres/device_statements.h"
#include "stores/postgres/device_where.h"

namespace flock::postgres {
namespace {

using domain::Field;
using domain::FieldType;

Field plain(std::string name, FieldType type, std::string sql) {
  return {std::move(name), type, std::move(sql)};
}
// Never NULL where it sorts, so that each page is one range of an index.
Field sorted(std::string name, FieldType type, std::string sql, std::string sort_sql = {}) {
  return {std::move(name), type, std::move(sql), {}, true, false, std::move(sort_sql)};
}

Field momentary(Field field) {
  field.momentary = true;
  return field;
}

}  // namespace

const domain::FieldTable& device_fields() {
  using enum FieldType;
  static const domain::FieldTable kFields = {
      sorted("id", kId, "d.id"),
      sorted("name", kText, "d.name"),
      plain("fleet", kText,
            "(SELECT s.slug FROM fleets s WHERE s.org_id = d.org_id AND s.id = d.fleet_id)"),
      plain("fleet_id", kId, "d.fleet_id"),
      momentary({"state",
                 kEnum,
                 "CASE WHEN d.decommissioned_at IS NOT NULL THEN 'DECOMMISSIONED' WHEN "
                 "d.revoked_at IS NOT "
                 "NULL THEN 'REVOKED' WHEN d.online THEN 'ONLINE' ELSE 'OFFLINE' END",
                 {"ONLINE", "OFFLINE", "REVOKED", "DECOMMISSIONED"}}),
      momentary(plain("online", kBoolean, "d.online")),
      momentary(plain("clone_suspected", kBoolean, "d.clone_suspected_at IS NOT NULL")),
      momentary(sorted("last_seen", kTime, "d.last_seen_at",
                       "coalesce(d.last_seen_at, 'epoch'::timestamptz)")),
      sorted("registered_at", kTime, "d.registered_at"),
      plain("agent_version", kVersion, "d.agent_version"),
      momentary(plain("release", kText,
                      "(SELECT s.version FROM releases s WHERE s.org_id = d.org_id AND s.id = "
                      "d.desired_release_id)")),
      momentary(plain("release_id", kId, "d.desired_release_id")),
      plain("labels", kLabels, "d.labels"),
      plain("attributes", kAttributes, "d.attributes"),
      plain("notes", kText, "d.notes"),
      plain("architecture", kText, "d.architecture"),
      plain("variant", kText, "d.variant"),
      plain("os", kText, "d.hardware ->> 'os'"),
      plain("os.version", kVersion, "substring(d.hardware ->> 'os' from '[0-9][0-9.]*')"),
      plain("kernel", kVersion, "d.hardware ->> 'kernel'"),
      plain("hostname", kText, "d.hardware ->> 'hostname'"),
      plain("machine_id", kText, "d.hardware ->> 'machine_id'"),
      plain("memory_bytes", kInteger, "(d.hardware ->> 'memory_bytes')::bigint"),
      plain("cpus", kInteger, "(d.hardware ->> 'cpus')::bigint"),
  };
  return kFields;
}

Statement device_page(const OrgId& org, const DevicePage& page, TimePoint now) {
  DeviceWhere builder(org);
  std::string where = builder.where(page.filter, now);
  if (page.after)
    builder.add(where, domain::after_sql(page.order, device_fields(), *page.after, builder.next()));
  std::string keys, outer_keys;
  int number = 0;
  for (const std::string& column : domain::key_columns(page.order, device_fields())) {
    const std::string name = "key" + std::to_string(number++);
    keys += ", " + column + " AS " + name;
    outer_keys += ", d." + name;
  }
  // The page first: only its rows are joined.
  const std::string order = " ORDER BY " + domain::order_sql(page.order, device_fields());
  std::string text = FLOCK_DEVICE_COLUMNS + outer_keys + " FROM (SELECT d.*" + keys +
                     " FROM devices d " + where + order + " LIMIT " +
                     builder.bind(std::to_string(page.limit)) + "::bigint) d" FLOCK_DEVICE_JOINS +
                     order;
  return {std::move(text), builder.take()};
}

Statement operation_insert(const OrgId& org, const NewOperation& operation, TimePoint now) {
  DeviceWhere builder(org);
  std::string where = builder.where(operation.filter, now);
  if (operation.ids) where += " AND d.id = ANY(" + builder.list(*operation.ids) + "::uuid[])";
  const std::string most = builder.bind(std::to_string(operation.limit));
  const std::string id = builder.bind(operation.id), kind = builder.bind(operation.kind),
                    actor = builder.bind(operation.actor),
                    request = builder.bind(operation.request);
  const std::string fleets =
      operation.fleets ? builder.list(*operation.fleets) + "::text[]" : "NULL::text[]";
  return {
      "INSERT INTO operations(id, org_id, kind, state, actor, request, fleets, device_ids, "
      "total_count) SELECT " +
          id + "::uuid, $1::uuid, " + kind + ", 'RUNNING', " + actor + ", " + request +
          "::jsonb, " + fleets +
          ", coalesce(array_agg(x.id), '{}'), count(*) FROM (SELECT "
          "d.id FROM devices d " +
          where + " LIMIT " + most + "::bigint) x RETURNING total_count",
      builder.take()};
}

}  // namespace flock::postgres

// SPDX-License-Identifier: Apache-2.0
#include "stores/postgres/device_query.h"

#include "stores/postgres/device_statements.h"

namespace flock::postgres {
namespace {

using domain::Field;
using domain::FieldType;
using domain::Filter;

Field plain(std::string name, FieldType type, std::string sql) {
  return {std::move(name), type, std::move(sql)};
}
// Never NULL where it sorts, so that each page is one range of an index.
Field sorted(std::string name, FieldType type, std::string sql, std::string sort_sql = {}) {
  return {std::move(name), type, std::move(sql), {}, true, false, std::move(sort_sql)};
}

// Equality of a label that every device of the list must have: looked up in device_labels, because
// row-level security keeps `@>` from the index (migration 0004).
bool is_label(const Filter& part) {
  return part.kind == Filter::Kind::kTerm && part.term.field == "labels" &&
         part.term.op == domain::Operator::kEqual;
}

class Builder {
 public:
  explicit Builder(const OrgId& org) { params_.text(org.text()); }

  std::string where(const Filter& filter, TimePoint now) {
    std::string out = "WHERE d.org_id = $1 AND d.removed_at IS NULL";
    Filter rest{Filter::Kind::kAnd};
    const bool all = filter.kind == Filter::Kind::kAnd;
    const std::vector<Filter> one = {filter};
    for (const Filter& part : all ? filter.parts : one) {
      if (!is_label(part)) {
        rest.parts.push_back(part);
        continue;
      }
      const std::string key = bind(part.term.key);
      const std::string value = bind(std::get<std::string>(part.term.value));
      out +=
          " AND d.id IN (SELECT l.device_id FROM device_labels l WHERE l.org_id = $1 AND l.key "
          "= " +
          key + " AND l.value = " + value + ")";
    }
    if (!rest.parts.empty()) add(out, domain::compile_sql(rest, device_fields(), next_, now));
    return out;
  }
  void add(std::string& out, domain::Sql condition) {
    out += " AND " + condition.text;
    for (std::string& value : condition.values) bind(std::move(value));
  }
  std::string bind(std::string value) {
    params_.text(std::move(value));
    return "$" + std::to_string(next_++);
  }
  std::string list(const std::vector<std::string>& values) {
    params_.texts(values);
    return "$" + std::to_string(next_++);
  }
  int next() const { return next_; }
  Params take() { return std::move(params_); }

 private:
  Params params_;
  int next_ = 2;
};

}  // namespace

const domain::FieldTable& device_fields() {
  using enum FieldType;
  static const domain::FieldTable kFields = {
      sorted("id", kId, "d.id"),
      sorted("name", kText, "d.name"),
      plain("fleet", kText, "f.slug"),
      plain("fleet_id", kId, "d.fleet_id"),
      {"state",
       kEnum,
       "CASE WHEN d.decommissioned_at IS NOT NULL THEN 'DECOMMISSIONED' WHEN d.revoked_at IS NOT "
       "NULL THEN 'REVOKED' WHEN d.online THEN 'ONLINE' ELSE 'OFFLINE' END",
       {"ONLINE", "OFFLINE", "REVOKED", "DECOMMISSIONED"}},
      plain("online", kBoolean, "d.online"),
      plain("clone_suspected", kBoolean, "d.clone_suspected_at IS NOT NULL"),
      sorted("last_seen", kTime, "d.last_seen_at",
             "coalesce(d.last_seen_at, 'epoch'::timestamptz)"),
      sorted("registered_at", kTime, "d.registered_at"),
      plain("agent_version", kVersion, "d.agent_version"),
      plain("release", kText, "r.version"),
      plain("release_id", kId, "d.desired_release_id"),
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
  Builder builder(org);
  std::string where = builder.where(page.filter, now);
  if (page.after)
    builder.add(where, domain::after_sql(page.order, device_fields(), *page.after, builder.next()));
  std::string text = FLOCK_DEVICE_COLUMNS;
  int number = 0;
  for (const std::string& column : domain::key_columns(page.order, device_fields()))
    text += ", " + column + " AS key" + std::to_string(number++);
  text += FLOCK_DEVICE_TABLES + where + " ORDER BY " +
          domain::order_sql(page.order, device_fields()) + " LIMIT " +
          builder.bind(std::to_string(page.limit)) + "::bigint";
  return {std::move(text), builder.take()};
}

Statement operation_insert(const OrgId& org, const NewOperation& operation, TimePoint now) {
  Builder builder(org);
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
          "d.id" FLOCK_DEVICE_TABLES +
          where + " LIMIT " + most + "::bigint) x RETURNING total_count",
      builder.take()};
}

}  // namespace flock::postgres

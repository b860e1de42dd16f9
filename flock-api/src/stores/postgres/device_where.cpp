// SPDX-License-Identifier: Apache-2.0
#include "stores/postgres/device_where.h"

#include "stores/postgres/device_fields.h"

namespace flock::postgres {
namespace {

using domain::Filter;

// Equality that every device must have, where another table's index finds the devices: a label's
// (row-level security keeps `@>` from an index, migration 0004) and the fleet's slug.
bool is_looked_up(const Filter& part) {
  return part.kind == Filter::Kind::kTerm && part.term.op == domain::Operator::kEqual &&
         (part.term.field == "labels" || part.term.field == "fleet");
}

}  // namespace

std::string DeviceWhere::where(const Filter& filter, TimePoint now) {
  std::string out = "WHERE d.org_id = $1 AND d.removed_at IS NULL";
  Filter rest{Filter::Kind::kAnd};
  const bool all = filter.kind == Filter::Kind::kAnd;
  const std::vector<Filter> one = {filter};
  for (const Filter& part : all ? filter.parts : one) {
    if (is_looked_up(part))
      out += look_up(part.term);
    else
      rest.parts.push_back(part);
  }
  if (!rest.parts.empty()) out += " AND " + condition(rest, now);
  return out;
}

std::string DeviceWhere::look_up(const domain::Term& term) {
  const std::string& text = std::get<std::string>(term.value);
  if (term.field == "fleet")
    return " AND d.fleet_id IN (SELECT s.id FROM fleets s WHERE s.org_id = $1 AND s.slug = " +
           bind(text) + ")";
  const std::string key = bind(term.key), value = bind(text);
  return " AND d.id IN (SELECT l.device_id FROM device_labels l WHERE l.org_id = $1 AND l.key "
         "= " +
         key + " AND l.value = " + value + ")";
}

std::string DeviceWhere::condition(const Filter& filter, TimePoint now) {
  domain::Sql compiled = domain::compile_sql(filter, device_fields(), next_, now);
  for (std::string& value : compiled.values) bind(std::move(value));
  return std::move(compiled.text);
}

void DeviceWhere::add(std::string& out, domain::Sql condition) {
  out += " AND " + condition.text;
  for (std::string& value : condition.values) bind(std::move(value));
}

std::string DeviceWhere::bind(std::string value) {
  params_.text(std::move(value));
  return "$" + std::to_string(next_++);
}

std::string DeviceWhere::list(const std::vector<std::string>& values) {
  params_.texts(values);
  return "$" + std::to_string(next_++);
}

}  // namespace flock::postgres

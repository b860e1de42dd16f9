// SPDX-License-Identifier: Apache-2.0
// Devices as people see them: PostgreSQL joined with the live state.
#include "targets/api/devices.h"

namespace flock::targets::api {
namespace {

const char* state_of(const Row& row) {
  if (row.optional_text("decommissioned_at")) return "DECOMMISSIONED";
  if (row.optional_text("revoked_at")) return "REVOKED";
  return row.boolean("online") ? "ONLINE" : "OFFLINE";
}

bj::object connectivity_json(const Row& row, const bj::storage_ptr& memory) {
  bj::object out({{"online", row.boolean("online")}}, memory);
  set_time(out, "since", row.optional_time("turned_at"));
  if (const auto reason = row.optional_text("turned_reason")) out["reason"] = *reason;
  set_time(out, "last_seen_at", row.optional_time("last_seen_at"));
  return out;
}

Error no_such_device(const std::string& id) {
  return Error(Code::kNotFound, "no such device")
      .with("device", id)
      .hint("flock devices lists them");
}

// An id is looked for first, so that a device's name cannot hide another one. A name that two
// devices carry is a conflict, not a guess.
using Query = std::function<Task<postgres::Rows>(const char*, Params)>;
Task<postgres::Rows> look_for_name(Query query, std::string org, std::string id) {
  auto found = co_await query(sql::kDeviceByName, Params().text(org).text(id));
  if (found.empty()) throw no_such_device(id);
  if (found.rows.size() > 1)
    throw Error(Code::kConflict, "several devices have this name")
        .with("device", id)
        .hint("name it by its id");
  co_return found;
}
Task<postgres::Rows> look_for(Query query, std::string org, std::string id) {
  if (is_uuid(id)) {
    auto found = co_await query(sql::kDeviceGet, Params().text(org).text(id));
    if (!found.empty()) co_return found;
  }
  co_return co_await look_for_name(query, org, id);
}

// "" when it is good.
std::string label_fault(std::string_view key) {
  const auto word = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  const bool good = !key.empty() && key.size() <= 63 && word(key[0]) &&
                    std::all_of(key.begin(), key.end(), [&](char c) {
                      return word(c) || c == '.' || c == '_' || c == '/' || c == '-';
                    });
  return good ? ""
              : "keys have 1 to 63 of a-z, 0-9, '.', '_', '/' and '-', and begin with a letter or "
                "digit";
}

}  // namespace

bj::object device_json(const Row& row, const std::optional<std::string>& live) {
  // One block for the whole tree, freed at once.
  const bj::storage_ptr memory = bj::make_shared_resource<bj::monotonic_resource>(2048);
  const auto stored = [&](const char* column) { return bj::parse(row.text(column), memory); };
  bj::object out({{"id", row.text("id")},
                  {"name", row.text("name")},
                  {"state", state_of(row)},
                  {"fleet",
                   {{"id", row.text("fleet_id")},
                    {"slug", row.text("fleet_slug")},
                    {"name", row.text("fleet_name")}}},
                  {"labels", stored("labels")},
                  {"attributes", stored("attributes")},
                  {"hardware", stored("hardware")}},
                 memory);
  if (!row.text("notes").empty()) out["notes"] = row.text("notes");
  set_time(out, "registered_at", row.time("registered_at"));
  set_time(out, "last_seen_at", row.optional_time("last_seen_at"));
  out["connectivity"] = connectivity_json(row, memory);
  set_time(out, "decommissioned_at", row.optional_time("decommissioned_at"));
  if (const auto reason = row.optional_text("decommission_reason"))
    out["decommission_reason"] = *reason;
  set_time(out, "clone_suspected_at", row.optional_time("clone_suspected_at"));
  if (const auto version = row.optional_text("agent_version")) out["agent_version"] = *version;
  if (const auto release = row.optional_text("release_id")) {
    out["desired"] =
        bj::object{{"version", row.integer("desired_version")},
                   {"release", {{"id", *release}, {"version", row.text("release_version")}}}};
  }
  device::v1::ReportedState report;
  if (live && report.ParseFromString(*live)) out["reported"] = reported_json(report);
  return out;
}

Task<bj::array> devices_json(Context& c, const postgres::Rows& rows) {
  std::vector<DeviceId> ids;
  for (const Row& row : rows.rows) ids.push_back(DeviceId::trusted(row.text("id")));
  const auto live = co_await c.parts.live.get_reported(std::move(ids));
  bj::array items;
  for (std::size_t i = 0; i < rows.rows.size(); ++i)
    items.push_back(device_json(rows.rows[i], live[i]));
  co_return items;
}

Task<bj::object> find_device(Call& call, std::string id) {
  if (is_uuid(id)) {
    const auto found = co_await call.context.devices.find(call.scope(), id);
    if (found) co_return device_json(found->row, found->live);
  }
  const auto query = [&](const char* statement, Params params) {
    return call.query(statement, std::move(params));
  };
  const bj::array items =
      co_await devices_json(call.context, co_await look_for_name(query, call.org(), id));
  co_return items.at(0).as_object();
}

Task<bj::object> find_device_in(postgres::Transaction& tx, Call& call, std::string id) {
  const auto query = [&](const char* statement, Params params) {
    return tx.query(statement, std::move(params));
  };
  const auto seen = co_await look_for(query, call.org(), id);
  const Params named = Params().text(call.org()).text(seen.rows.front().text("id"));
  co_await tx.query(sql::kDeviceLock, named);
  const auto locked = co_await tx.query(sql::kDeviceGet, named);
  if (locked.empty()) throw no_such_device(id);
  const bj::array items = co_await devices_json(call.context, locked);
  co_return items.at(0).as_object();
}

Task<std::string> fleet_id_in(postgres::Transaction& tx, Call& call, std::string name) {
  const auto rows = co_await tx.query(sql::kFleetGet, Params().text(call.org()).text(name));
  if (rows.empty())
    throw Error(Code::kNotFound, "no such fleet")
        .with("fleet", name)
        .hint("flock fleets lists them");
  co_return rows.rows.front().text("id");
}

std::string text_of(const bj::object& device, const char* key) {
  return std::string(device.at(key).as_string());
}

std::string actor_of(const Call& call) {
  return call.who.email.empty() ? call.who.name : call.who.email;
}

Task<void> remember(postgres::Transaction& tx, Call& call, std::string device, std::string kind,
                    bj::object detail) {
  co_await tx.query(sql::kDeviceHistoryInsert, Params()
                                                   .text(call.org())
                                                   .text(device)
                                                   .text(kind)
                                                   .text(actor_of(call))
                                                   .text(bj::serialize(detail)));
}

bj::object read_labels(json::Reader& in, const char* key, std::vector<std::string>* removed) {
  bj::object labels;
  const bj::object* given = in.optional_object(key);
  if (given == nullptr) return labels;
  for (const auto& [name, value] : *given) {
    const std::string fault = label_fault(name);
    if (!fault.empty()) {
      in.problem(key, "invalid", fault);
    } else if (value.is_null() && removed != nullptr) {
      removed->emplace_back(name);
    } else if (!value.is_string() || value.get_string().size() > 255 ||
               value.get_string().find('\0') != bj::string::npos) {
      in.problem(key, "invalid",
                 std::string(name) + ": a label is a text of at most 255 bytes without NUL");
    } else {
      labels[name] = value;
    }
  }
  if (labels.size() > kMostLabels) in.problem(key, "too_many", "at most 64 labels");
  return labels;
}

std::vector<std::string> read_label_keys(json::Reader& in, const char* key) {
  auto keys = in.optional_strings(key, kMostLabels, {.min = 1, .max = 63});
  for (const std::string& name : keys) {
    if (const std::string fault = label_fault(name); !fault.empty())
      in.problem(key, "invalid", fault);
  }
  return keys;
}

mqtt::Message revocation_message(const Settings& settings, const std::string& device,
                                 std::int64_t revoked_at_ms) {
  mqtt::Message message;
  message.topic = "$CONTROL/flock/v1/revoke";
  message.payload = bj::serialize(
      bj::object{{"device", device},
                 {"revoked_at_ms", revoked_at_ms},
                 {"keep_until_ms", revoked_at_ms + settings.longest_device_token().count()}});
  return message;
}

}  // namespace flock::targets::api

// SPDX-License-Identifier: Apache-2.0
// Devices as people see them: PostgreSQL joined with the live state.
#include <algorithm>

#include "targets/api/call.h"

#include "async/deadline.h"
#include "base/log.h"
#include "flock/device/v1/device.pb.h"
#include "flock/internal/v1/internal.pb.h"

namespace flock::targets::api {
namespace {

constexpr Duration kTellTime{3000};
// What the device says of itself, and what a rollout wants of it.
constexpr std::string_view kPassing[] = {"state",   "last_seen_at",  "reported",
                                         "desired", "agent_version", "hardware"};

const char* phase_name(device::v1::ReportedState::Phase phase) {
  using R = device::v1::ReportedState;
  switch (phase) {
    case R::IDLE:
      return "IDLE";
    case R::DOWNLOADING:
      return "DOWNLOADING";
    case R::STARTING:
      return "STARTING";
    case R::SOAKING:
      return "SOAKING";
    case R::CONFIRMED:
      return "CONFIRMED";
    case R::FAILED:
      return "FAILED";
    default:
      return "UNKNOWN";
  }
}
const char* state_name(device::v1::ServiceState::State state) {
  static constexpr const char* kNames[] = {"UNKNOWN", "PENDING", "PULLING", "CREATED",
                                           "RUNNING", "EXITED",  "MISSING"};
  return state >= 0 && state < 7 ? kNames[state] : "UNKNOWN";
}
const char* health_name(device::v1::ServiceState::Health health) {
  static constexpr const char* kNames[] = {"UNKNOWN", "NO_CHECK", "CHECKING", "HEALTHY",
                                           "UNHEALTHY"};
  return health >= 0 && health < 5 ? kNames[health] : "UNKNOWN";
}

// A device's clock can say anything; RFC 3339 ends with the year 9999.
TimePoint time_of(std::int64_t unix_ms) {
  return from_unix_ms(std::clamp<std::int64_t>(unix_ms, 0, 253'402'300'799'999));
}

bj::object reported_json(const device::v1::ReportedState& report) {
  bj::array services;
  for (const auto& s : report.services()) {
    bj::object service{{"name", s.name()},
                       {"state", state_name(s.state())},
                       {"health", health_name(s.health())},
                       {"image_digest", s.image_digest()},
                       {"restart_count", s.restart_count()},
                       {"container_id", s.container_id()}};
    if (s.state() == device::v1::ServiceState::EXITED) service["exit_code"] = s.exit_code();
    if (!s.message().empty()) service["message"] = s.message();
    services.push_back(std::move(service));
  }
  bj::object out{{"phase", phase_name(report.phase())},
                 {"release_id", report.release_id()},
                 {"desired_version", report.desired_version()},
                 {"at", to_rfc3339(time_of(report.at_ms()))},
                 {"services", std::move(services)}};
  if (!report.error().empty()) out["error"] = report.error();
  if (!report.error_code().empty()) out["error_code"] = report.error_code();
  return out;
}

bj::object device_json(const Row& row, const std::optional<std::string>& live) {
  const bool revoked = row.optional_time("revoked_at").has_value();
  bj::object out{{"id", row.text("id")},
                 {"name", row.text("name")},
                 {"state", revoked                 ? "REVOKED"
                           : row.boolean("online") ? "ONLINE"
                                                   : "OFFLINE"},
                 {"fleet",
                  {{"id", row.text("fleet_id")},
                   {"slug", row.text("fleet_slug")},
                   {"name", row.text("fleet_name")}}},
                 {"hardware", json::parse(row.text("hardware"))}};
  set_time(out, "registered_at", row.time("registered_at"));
  set_time(out, "last_seen_at", row.optional_time("last_seen_at"));
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

Task<net::Reply> list_devices(Call& call) {
  allow_query(call.request, {"page_size", "page_token", "fleet_id", "state"});
  const Page page = read_page(call.request);
  const std::string state = call.request.query("state").value_or("");
  if (!state.empty() && state != "ONLINE" && state != "OFFLINE" && state != "REVOKED")
    throw Error(Code::kInvalidArgument, "state must be one of ONLINE, OFFLINE, REVOKED");
  const auto rows =
      co_await call.query(sql::kDeviceList, Params()
                                                .text(call.org())
                                                .text(page.after)
                                                .text(call.request.query("fleet_id").value_or(""))
                                                .text(state)
                                                .integer(page.size + 1));
  bj::array items = co_await devices_json(call.context, rows);
  co_return list_reply(std::move(items), page);
}

// By id or by name; a name that two devices carry is a conflict, not a guess.
postgres::Rows only_device(postgres::Rows found, const std::string& id) {
  if (found.empty())
    throw Error(Code::kNotFound, "no such device")
        .with("device", id)
        .hint("flock devices lists them");
  if (found.rows.size() > 1 && found.rows.front().text("id") != id)
    throw Error(Code::kConflict, "several devices have this name")
        .with("device", id)
        .hint("name it by its id");
  found.rows.erase(found.rows.begin() + 1, found.rows.end());
  return found;
}

Task<bj::object> find_device(Call& call, std::string id) {
  auto rows = co_await call.query(sql::kDeviceGet, Params().text(call.org()).text(id));
  const bj::array items = co_await devices_json(call.context, only_device(std::move(rows), id));
  co_return items.at(0).as_object();
}

Task<bj::object> find_device_in(postgres::Transaction& tx, Call& call, std::string id) {
  auto rows = co_await tx.query(sql::kDeviceGet, Params().text(call.org()).text(id));
  const bj::array items = co_await devices_json(call.context, only_device(std::move(rows), id));
  co_return items.at(0).as_object();
}

std::string text_of(const bj::object& device, const char* key) {
  return std::string(device.at(key).as_string());
}

Task<net::Reply> get_device(Call& call) {
  const bj::object device = co_await find_device(call, call.parameter("id"));
  co_return call.answer(200, device, kPassing);
}

Task<net::Reply> rename_device(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::string name = in.string("name", {.min = 1, .max = 100});
  in.finish();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const bj::object before = co_await find_device_in(tx, call, call.parameter("id"));
    call.check_match(before, kPassing);
    const std::string id = text_of(before, "id");
    co_await tx.query(sql::kDeviceRename, Params().text(call.org()).text(id).text(name));
    const bj::object now = co_await find_device_in(tx, call, id);
    co_return Change{"device",
                     id,
                     name,
                     call.answer(200, now, kPassing),
                     {{"name", name}, {"before", before.at("name")}}};
  };
  co_return co_await call.mutate(work);
}

Task<void> tell_revoked(Context& c, OrgId org, std::string id) {
  const std::int64_t now = to_unix_ms(system_clock().now());
  mqtt::Message kick;
  kick.topic = "$CONTROL/flock/v1/revoke";
  kick.payload = bj::serialize(bj::object{{"device", id}, {"revoked_at_ms", now}});
  co_await c.parts.bus.publish(std::move(kick));
  internal::v1::DeviceRevoked event;
  event.set_org_id(org.text());
  event.set_device_id(id);
  event.set_at_ms(now);
  mqtt::Message told;
  told.topic = "flock/internal/v1/device/revoked";
  told.payload = event.SerializeAsString();
  co_await c.parts.bus.publish(std::move(told));
}

// The database first: a device that reconnects between the two steps is refused by its renewal
// already. A broker that is away has no session to end, and is told when it is back (ApiTarget).
Task<void> end_sessions(Call& call, std::string id) {
  try {
    co_await with_deadline(tell_revoked(call.context, call.who.org, id), kTellTime,
                           "telling the broker");
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    log::warn("the broker was not told of a revocation yet", error, {{"device", id}});
  }
}

Task<net::Reply> revoke_device(Call& call) {
  std::string id;
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const bj::object device = co_await find_device_in(tx, call, call.parameter("id"));
    call.check_match(device, kPassing);
    id = text_of(device, "id");
    co_await tx.query(sql::kDeviceRevoke, Params().text(call.org()).text(id));
    const bj::object now = co_await find_device_in(tx, call, id);
    co_return Change{"device", id, text_of(now, "name"), call.answer(200, now, kPassing)};
  };
  co_return co_await call.mutate(work, [&] { return end_sessions(call, id); });
}

Task<net::Reply> remove_device(Call& call) {
  std::string id;
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const bj::object device = co_await find_device_in(tx, call, call.parameter("id"));
    call.check_match(device, kPassing);
    id = text_of(device, "id");
    co_await tx.query(sql::kDeviceRevoke, Params().text(call.org()).text(id));
    co_await tx.query(sql::kDeviceRemove, Params().text(call.org()).text(id));
    co_return Change{"device", id, text_of(device, "name"), json_reply(204, nullptr)};
  };
  co_return co_await call.mutate(work, [&] { return end_sessions(call, id); });
}

}  // namespace

void add_device_routes(Context& c) {
  c.add(allowed("listDevices", "GET", "/v1/devices", Permission::kDevicesRead), list_devices);
  c.add(allowed("getDevice", "GET", "/v1/devices/{id}", Permission::kDevicesRead), get_device);
  c.add(allowed("renameDevice", "PATCH", "/v1/devices/{id}", Permission::kDevicesWrite),
        rename_device);
  c.add(allowed("removeDevice", "DELETE", "/v1/devices/{id}", Permission::kDevicesWrite),
        remove_device);
  c.add(
      allowed("revokeDevice", "POST", "/v1/devices/{id}/actions/revoke", Permission::kDevicesWrite),
      revoke_device);
}

}  // namespace flock::targets::api

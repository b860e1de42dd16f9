// SPDX-License-Identifier: Apache-2.0
// What a device is told to do: now, or when it is back.
#include <algorithm>

#include "stores/postgres/command_statements.h"
#include "stores/postgres/device_query.h"
#include "targets/api/devices.h"

namespace flock::targets::api {
namespace {

constexpr Duration kWaits{3'600'000}, kMostWait = std::chrono::days(30);
constexpr std::size_t kMostTargets = 1000, kMostVolumes = 50;

bj::object command_json(const Row& row) {
  bj::object out{{"id", row.text("id")},
                 {"device", {{"id", row.text("device_id")}, {"name", row.text("device_name")}}},
                 {"type", row.text("kind")},
                 {"state", row.text("state")},
                 {"actor", row.text("actor")}};
  if (!row.text("service").empty()) out["service"] = row.text("service");
  const bj::value volumes = json::parse(row.text("volumes"));
  if (!volumes.as_array().empty()) out["volumes"] = volumes;
  if (row.text("kind") == "identify") out["seconds"] = row.integer("seconds");
  if (!row.text("message").empty()) out["message"] = row.text("message");
  set_time(out, "created_at", row.time("created_at"));
  set_time(out, "changed_at", row.time("changed_at"));
  set_time(out, "sent_at", row.optional_time("sent_at"));
  set_time(out, "expires_at", row.time("expires_at"));
  // Said as it is: nothing happens until the device is back.
  out["waits_for_device"] = row.text("state") == "PENDING" && !row.boolean("online");
  return out;
}

struct NewCommand {
  std::string kind, service, confirm;
  std::vector<std::string> volumes;
  std::int64_t seconds = 0;
  TimePoint expires;
  bool is_critical() const { return kind == "reboot" || kind == "purge"; }
};

NewCommand read_command(json::Reader& in) {
  NewCommand command;
  command.kind = in.string("type");
  const auto is = [&](const char* kind) { return command.kind == kind; };
  if (!is("restart_service") && !is("reboot") && !is("identify") && !is("purge"))
    in.problem("type", "invalid", "restart_service, reboot, identify or purge");
  command.service = in.optional_string("service").value_or("");
  if ((is("restart_service") || is("purge")) == command.service.empty())
    in.problem("service", command.service.empty() ? "required" : "invalid",
               "a service is named where one is restarted or purged, and only there");
  command.volumes = in.optional_strings("volumes", kMostVolumes, {});
  if (!command.volumes.empty() && !is("purge"))
    in.problem("volumes", "invalid", "only a purge is about volumes");
  const auto seconds = in.optional_integer("seconds", {.min = 1, .max = 3600});
  if (seconds && !is("identify")) in.problem("seconds", "invalid", "only of identify");
  command.seconds = seconds.value_or(is("identify") ? 30 : 0);
  command.confirm = in.optional_string("confirm").value_or("");
  command.expires =
      read_expiry(in, "expires_in", kMostWait).value_or(system_clock().now() + kWaits);
  return command;
}

void check_may(const Call& call, const NewCommand& command) {
  if (!command.is_critical() || call.who.permissions.has(Permission::kCommandsCritical)) return;
  throw Error(Code::kForbidden, "this needs the permission commands:critical")
      .hint("a reboot or a purge is for admins and owners");
}

// Returns the rows of what was made.
Task<postgres::Rows> insert(postgres::Transaction& tx, Call& call, const NewCommand& command,
                            std::vector<std::string> devices) {
  std::vector<std::string> ids(devices.size());
  std::generate(ids.begin(), ids.end(), new_uuid);
  co_await tx.query(sql::kCommandsInsert, Params()
                                              .text(call.org())
                                              .texts(ids)
                                              .texts(devices)
                                              .text(command.kind)
                                              .text(command.service)
                                              .texts(command.volumes)
                                              .integer(command.seconds)
                                              .text(actor_of(call))
                                              .integer(to_unix_ms(command.expires)));
  co_return co_await tx.query(sql::kCommandsById, Params().text(call.org()).texts(ids));
}

bj::object detail_of(const NewCommand& command) {
  bj::object out{{"type", command.kind}};
  if (!command.service.empty()) out["service"] = command.service;
  if (!command.volumes.empty()) out["volumes"] = bj::value_from(command.volumes);
  return out;
}

std::function<Task<void>()> wake(Call& call) {
  return [&call]() -> Task<void> {
    call.context.commands.wake();
    co_return;
  };
}

Task<net::Reply> create_command(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const NewCommand command = read_command(in);
  in.finish();
  check_may(call, command);
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const bj::object device = co_await find_device_in(tx, call, call.parameter("id"));
    const std::string id = text_of(device, "id"), name = text_of(device, "name"),
                      state = text_of(device, "state");
    if (state != "ONLINE" && state != "OFFLINE")
      throw Error(Code::kConflict, "the device is " + state + " and takes no commands")
          .with("device", id);
    if (command.kind == "purge" && command.confirm != name)
      throw Error(Code::kUnprocessable, "a purge deletes data for good, so it must be confirmed")
          .problems({{"/confirm", "invalid", "must be the device's name: " + name}});
    const auto made = co_await insert(tx, call, command, {id});
    const bj::object answer = command_json(made.rows.at(0));
    net::Reply reply = json_reply(201, answer);
    reply.response.headers.add("Location",
                               "/v1/devices/" + id + "/commands/" + made.rows.front().text("id"));
    co_return Change{"device", id, name, std::move(reply), detail_of(command)};
  };
  co_return co_await call.mutate(work, wake(call));
}

// --- Many devices
// ---------------------------------------------------------------------------------

struct Targets {
  domain::Filter filter;
  std::vector<std::string> ids;
  std::optional<std::int64_t> expected;
};

Targets read_targets(json::Reader& in) {
  Targets targets;
  const auto filter = in.optional_string("filter", {.min = 1, .max = 4096});
  targets.ids = in.optional_strings("device_ids", kMostTargets, {.min = 36, .max = 36});
  targets.expected = in.optional_integer("expected_count", {.min = 0, .max = kMostTargets});
  if (filter.has_value() == !targets.ids.empty())
    in.problem("filter", "required", "give filter or device_ids, and only one of them");
  if (filter && !targets.expected)
    in.problem("expected_count", "required",
               "say how many devices you mean: GET /v1/devices shows them");
  if (filter) targets.filter = domain::parse_filter(*filter, postgres::device_fields());
  std::sort(targets.ids.begin(), targets.ids.end());
  targets.ids.erase(std::unique(targets.ids.begin(), targets.ids.end()), targets.ids.end());
  for (const std::string& id : targets.ids) {
    if (!is_uuid(id)) in.problem("device_ids", "invalid", "must be ids of devices");
  }
  return targets;
}

Task<std::vector<std::string>> find_targets(postgres::Transaction& tx, Call& call,
                                            const Targets& targets) {
  std::vector<std::string> ids = targets.ids;
  if (ids.empty()) {
    postgres::DevicePage page{targets.filter,
                              domain::parse_order("", postgres::device_fields()),
                              {},
                              static_cast<std::int64_t>(kMostTargets) + 1};
    const auto statement = postgres::device_page(call.who.org, page, system_clock().now());
    const auto page_rows = co_await tx.query(statement.text.c_str(), statement.params);
    for (const Row& row : page_rows.rows) ids.push_back(row.text("id"));
    if (ids.size() > kMostTargets)
      throw Error(Code::kUnprocessable, "at most 1000 devices at once");
  }
  const auto found = co_await tx.query(sql::kCommandTargets, Params().text(call.org()).texts(ids));
  if (!targets.ids.empty() && found.rows.size() != ids.size())
    throw Error(Code::kNotFound, "not all of the devices are there and take commands")
        .with("found_count", std::to_string(found.rows.size()));
  if (targets.expected && *targets.expected != static_cast<std::int64_t>(found.rows.size()))
    throw Error(Code::kConflict, "this means another number of devices than you expect")
        .with("expected_count", std::to_string(*targets.expected))
        .with("actual_count", std::to_string(found.rows.size()))
        .hint("look at the devices again and repeat with the actual count");
  ids.clear();
  for (const Row& row : found.rows) ids.push_back(row.text("id"));
  co_return ids;
}

Task<net::Reply> command_devices(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const NewCommand command = read_command(in);
  if (command.kind == "purge")
    in.problem("type", "unsupported", "a purge is confirmed device by device");
  const Targets targets = read_targets(in);
  in.finish();
  check_may(call, command);
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const auto devices = co_await find_targets(tx, call, targets);
    const auto made = co_await insert(tx, call, command, devices);
    bj::array items;
    for (const Row& row : made.rows) items.push_back(command_json(row));
    bj::object detail = detail_of(command);
    detail["devices"] = bj::value_from(devices);
    co_return Change{"devices", "", std::to_string(devices.size()) + " devices",
                     json_reply(201, bj::object{{"items", std::move(items)}}), std::move(detail)};
  };
  co_return co_await call.mutate(work, wake(call));
}

// --- Reading and cancelling
// -------------------------------------------------------------------------

Error no_such_command(const std::string& id) {
  return Error(Code::kNotFound, "no such command")
      .with("command", id)
      .hint("flock devices commands lists them");
}

Task<net::Reply> list_commands(Call& call) {
  allow_query(call.request, {"page_size", "page_token"});
  const Page page = read_page(call.request);
  if (!page.after.empty() && !is_uuid(page.after))
    throw bad_parameter("page_token", "it is not one of ours");
  const std::string device = text_of(co_await find_device(call, call.parameter("id")), "id");
  const auto rows = co_await call.query(
      sql::kCommandList,
      Params().text(call.org()).text(device).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(command_json(row));
  co_return list_reply(std::move(items), page);
}

Task<net::Reply> get_command(Call& call) {
  const std::string device = text_of(co_await find_device(call, call.parameter("id")), "id"),
                    id = call.parameter("command");
  if (!is_uuid(id)) throw no_such_command(id);
  const auto rows =
      co_await call.query(sql::kCommandGet, Params().text(call.org()).text(device).text(id));
  if (rows.empty()) throw no_such_command(id);
  co_return json_reply(200, command_json(rows.rows.front()));
}

Task<net::Reply> cancel_command(Call& call) {
  const std::string id = call.parameter("command");
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const bj::object device = co_await find_device_in(tx, call, call.parameter("id"));
    if (!is_uuid(id)) throw no_such_command(id);
    const Params named = Params().text(call.org()).text(text_of(device, "id")).text(id);
    const auto cancelled = co_await tx.query(sql::kCommandCancel, named);
    const auto now = co_await tx.query(sql::kCommandGet, named);
    if (now.empty()) throw no_such_command(id);
    const Row& row = now.rows.front();
    if (cancelled.empty())
      throw Error(Code::kConflict, "the command is " + row.text("state") + " already")
          .hint("only what still waits can be cancelled");
    co_return Change{"device",
                     text_of(device, "id"),
                     text_of(device, "name"),
                     json_reply(200, command_json(row)),
                     {{"command", id}}};
  };
  co_return co_await call.mutate(work);
}

}  // namespace

void add_command_routes(Context& c) {
  constexpr auto kReads = Permission::kDevicesRead, kWrites = Permission::kCommandsWrite;
  c.add(allowed("listDeviceCommands", "GET", "/v1/devices/{id}/commands", kReads), list_commands);
  c.add(allowed("createDeviceCommand", "POST", "/v1/devices/{id}/commands", kWrites),
        create_command);
  c.add(allowed("getDeviceCommand", "GET", "/v1/devices/{id}/commands/{command}", kReads),
        get_command);
  c.add(allowed("cancelDeviceCommand", "POST", "/v1/devices/{id}/commands/{command}/actions/cancel",
                kWrites),
        cancel_command);
  c.add(allowed("commandDevices", "POST", "/v1/devices:command", kWrites), command_devices);
}

}  // namespace flock::targets::api

// SPDX-License-Identifier: Apache-2.0
// What can be done to a device beside writing about it.
#include "async/deadline.h"
#include "base/log.h"
#include "flock/internal/v1/internal.pb.h"
#include "services/device_changes.h"
#include "services/membership.h"
#include "targets/api/devices.h"

namespace flock::targets::api {
namespace {

constexpr Duration kTellTime{3000};

Task<void> tell_revoked(Context& c, OrgId org, std::string id) {
  const std::int64_t now = to_unix_ms(system_clock().now());
  co_await c.parts.bus.publish(revocation_message(c.parts.settings, id, now));
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

// It left: its sessions end, and whoever follows devices is told.
Task<void> see_off(Call& call, std::string id, std::string fleet, const char* reason) {
  co_await end_sessions(call, id);
  co_await services::announce(call.context.parts.bus, services::Membership::kRemoved,
                              services::membership(call.org(), fleet, id, reason));
}

std::string fleet_of(const bj::object& device) {
  return std::string(device.at("fleet").at("id").as_string());
}

// The device under its lock, what `act` does to it, a history entry, and the device as it is then.
struct Deed {
  std::string kind;
  bj::object detail = {};
};
using Act = std::function<Task<void>(postgres::Transaction&, std::string id, std::string fleet)>;
Task<Change> change_device(postgres::Transaction& tx, Call& call, Deed deed, Act act) {
  const bj::object before = co_await find_device_in(tx, call, call.parameter("id"));
  call.check_match(before, kDevicePassing);
  const std::string id = text_of(before, "id");
  co_await act(tx, id, fleet_of(before));
  if (!deed.kind.empty()) co_await remember(tx, call, id, deed.kind, deed.detail);
  const bj::object now = co_await find_device_in(tx, call, id);
  co_return Change{"device", id, text_of(now, "name"), call.answer(200, now, kDevicePassing),
                   deed.detail};
}

Task<net::Reply> revoke_device(Call& call) {
  std::string id;
  const auto act = [&](postgres::Transaction& tx, std::string device, std::string) -> Task<void> {
    id = device;
    co_await tx.query(sql::kDeviceRevoke, Params().text(call.org()).text(id));
  };
  const auto work = [&](postgres::Transaction& tx) {
    return change_device(tx, call, {"REVOKED"}, act);
  };
  co_return co_await call.mutate(work, [&] { return end_sessions(call, id); });
}

Task<net::Reply> decommission_device(Call& call) {
  std::optional<std::string> reason;
  if (!call.request.body.empty()) {
    const bj::value body = read_body(call.request);
    json::Reader in(body);
    reason = in.optional_string("reason", {.min = 1, .max = 1000});
    in.finish();
  }
  std::string id, fleet;
  const auto act = [&](postgres::Transaction& tx, std::string device,
                       std::string in) -> Task<void> {
    id = device;
    fleet = in;
    co_await tx.query(sql::kDeviceDecommission, Params().text(call.org()).text(id).text(reason));
  };
  Deed deed{"DECOMMISSIONED"};
  if (reason) deed.detail["reason"] = *reason;
  const auto work = [&](postgres::Transaction& tx) { return change_device(tx, call, deed, act); };
  co_return co_await call.mutate(work, [&] { return see_off(call, id, fleet, "decommissioned"); });
}

Task<net::Reply> move_device(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::string name = in.string("fleet_id", {.min = 1, .max = 63});
  in.finish();
  const auto act = [&](postgres::Transaction& tx, std::string id, std::string) -> Task<void> {
    services::DeviceChange change;
    change.fleet = co_await fleet_id_in(tx, call, name);
    co_await services::change_devices(tx, call.org(), actor_of(call), change, {id});
  };
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    Change change = co_await change_device(tx, call, {}, act);
    change.detail["fleet"] = name;
    co_return change;
  };
  co_return co_await call.mutate(work);
}

Task<net::Reply> clear_clone_suspicion(Call& call) {
  const auto act = [&](postgres::Transaction& tx, std::string id, std::string) -> Task<void> {
    co_await tx.query(sql::kDeviceClearClone, Params().text(call.org()).text(id));
  };
  const auto work = [&](postgres::Transaction& tx) {
    return change_device(tx, call, {"CLONE_SUSPICION_CLEARED"}, act);
  };
  co_return co_await call.mutate(work);
}

Task<net::Reply> remove_device(Call& call) {
  std::string id, fleet;
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const bj::object device = co_await find_device_in(tx, call, call.parameter("id"));
    call.check_match(device, kDevicePassing);
    id = text_of(device, "id");
    fleet = fleet_of(device);
    co_await remember(tx, call, id, "REMOVED", {});
    co_await tx.query(sql::kDeviceRevoke, Params().text(call.org()).text(id));
    co_await tx.query(sql::kDeviceRemove, Params().text(call.org()).text(id));
    co_return Change{"device", id, text_of(device, "name"), json_reply(204, nullptr)};
  };
  co_return co_await call.mutate(work, [&] { return see_off(call, id, fleet, "removed"); });
}

// Where it was, unless the request names another fleet.
Task<std::string> fleet_to_return_to(postgres::Transaction& tx, Call& call, const Row& removed,
                                     std::optional<std::string> wanted) {
  if (wanted) co_return co_await fleet_id_in(tx, call, *wanted);
  const auto former = removed.optional_text("removed_from_fleet_id");
  const auto there =
      co_await tx.query(sql::kFleetGet, Params().text(call.org()).text(former.value_or("none")));
  if (there.empty())
    throw Error(Code::kConflict, "the fleet that the device was in is gone")
        .hint("name another: fleet_id");
  co_return *former;
}

Task<net::Reply> undelete_device(Call& call) {
  std::optional<std::string> wanted;
  if (!call.request.body.empty()) {
    const bj::value body = read_body(call.request);
    json::Reader in(body);
    wanted = in.optional_string("fleet_id", {.min = 1, .max = 63});
    in.finish();
  }
  const std::string id = DeviceId::parse(call.parameter("id")).text();
  std::string returned;  // the fleet
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const Params named = Params().text(call.org()).text(id);
    co_await tx.query(sql::kDeviceLock, named);
    const auto found = co_await tx.query(sql::kDeviceAny, named);
    if (found.empty()) throw Error(Code::kNotFound, "no such device").with("device", id);
    const Row& row = found.rows.front();
    if (!row.boolean("removed")) throw Error(Code::kConflict, "the device was not removed");
    if (row.boolean("too_late"))
      throw Error(Code::kConflict, "the device was removed more than 30 days ago")
          .hint("register it again with a provisioning key");
    const std::string fleet = co_await fleet_to_return_to(tx, call, row, wanted);
    Params change = named;
    try {
      co_await tx.query(sql::kDeviceUndelete, change.text(fleet));
    } catch (const Error& error) {
      if (error.code() != Code::kConflict) throw;
      throw Error(Code::kConflict, "the device has registered anew since, under another id");
    }
    returned = fleet;
    co_await remember(tx, call, id, "UNDELETED", {{"fleet_id", fleet}});
    const bj::object now = co_await find_device_in(tx, call, id);
    co_return Change{"device", id, text_of(now, "name"), call.answer(200, now, kDevicePassing)};
  };
  co_return co_await call.mutate(work, [&] {
    return services::announce(call.context.parts.bus, services::Membership::kRegistered,
                              services::membership(call.org(), returned, id));
  });
}

}  // namespace

void add_device_actions(Context& c) {
  const auto action = [&](const char* id, const char* name, Context::Route route) {
    c.add(allowed(id, "POST", std::string("/v1/devices/{id}/actions/") + name,
                  Permission::kDevicesWrite),
          std::move(route));
  };
  c.add(allowed("removeDevice", "DELETE", "/v1/devices/{id}", Permission::kDevicesWrite),
        remove_device);
  action("revokeDevice", "revoke", revoke_device);
  action("moveDevice", "move", move_device);
  action("decommissionDevice", "decommission", decommission_device);
  action("undeleteDevice", "undelete", undelete_device);
  action("clearCloneSuspicion", "clear-clone-suspicion", clear_clone_suspicion);
}

}  // namespace flock::targets::api

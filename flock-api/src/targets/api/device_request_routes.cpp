// SPDX-License-Identifier: Apache-2.0
// The waiting room: devices whose provisioning key asks for somebody's word.
#include <algorithm>

#include "targets/api/call.h"

namespace flock::targets::api {
namespace {

constexpr std::string_view kStates[] = {"PENDING", "APPROVED", "REJECTED", "ADMITTED"};
// It changes each time the device asks again.
constexpr std::string_view kPassing[] = {"asked_at", "ip"};

bj::object request_json(const Row& row) {
  bj::object out{{"id", row.text("id")},
                 {"state", row.text("state")},
                 {"fleet_id", row.text("fleet_id")},
                 {"provisioning_key_id", row.text("key_id")},
                 {"thumbprint", row.text("thumbprint")},
                 {"name", row.text("name")},
                 {"hardware", json::parse(row.text("hardware"))},
                 {"ip", row.text("ip")}};
  for (const char* key : {"agent_version", "device_id", "decided_by"}) {
    if (const auto value = row.optional_text(key); value && !value->empty()) out[key] = *value;
  }
  set_time(out, "created_at", row.time("created_at"));
  set_time(out, "asked_at", row.time("asked_at"));
  set_time(out, "decided_at", row.optional_time("decided_at"));
  return out;
}

Row only(const postgres::Rows& rows, const std::string& id) {
  if (rows.empty())
    throw Error(Code::kNotFound, "no such device request")
        .with("id", id)
        .hint("flock device-requests lists them");
  return rows.rows.front();
}

Task<net::Reply> list_requests(Call& call) {
  allow_query(call.request, {"page_size", "page_token", "state"});
  const Page page = read_page(call.request);
  const std::string state = call.request.query("state").value_or("");
  if (!state.empty() && std::ranges::find(kStates, state) == std::end(kStates))
    throw bad_parameter("state", "must be PENDING, APPROVED, REJECTED or ADMITTED");
  const auto rows = co_await call.query(
      sql::kDeviceRequestList,
      Params().text(call.org()).text(page.after).text(state).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(request_json(row));
  co_return list_reply(std::move(items), page);
}

Task<net::Reply> get_request(Call& call) {
  const std::string id = KeyId::parse(call.parameter("id")).text();
  const auto rows = co_await call.query(sql::kDeviceRequestGet, Params().text(call.org()).text(id));
  co_return call.answer(200, request_json(only(rows, id)), kPassing);
}

Task<net::Reply> decide(Call& call, std::string state) {
  const std::string id = KeyId::parse(call.parameter("id")).text();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const Params params = Params().text(call.org()).text(id);
    const auto found = co_await tx.query(sql::kDeviceRequestLock, params);
    const Row before = only(found, id);
    call.check_match(request_json(before), kPassing);
    if (before.text("state") == "ADMITTED")
      throw Error(Code::kConflict, "the device is in already")
          .with("device", before.text("device_id"))
          .hint("flock devices revoke keeps it out from now on");
    const std::string by = call.who.email.empty() ? call.who.name : call.who.email;
    co_await tx.query(sql::kDeviceRequestDecide,
                      Params().text(call.org()).text(id).text(state).text(by));
    const auto rows = co_await tx.query(sql::kDeviceRequestGet, params);
    const Row now = only(rows, id);
    co_return Change{"device_request",
                     id,
                     now.text("name"),
                     call.answer(200, request_json(now), kPassing),
                     {{"thumbprint", now.text("thumbprint")}, {"before", before.text("state")}}};
  };
  co_return co_await call.mutate(work);
}

Task<net::Reply> approve(Call& call) { return decide(call, "APPROVED"); }
Task<net::Reply> reject(Call& call) { return decide(call, "REJECTED"); }

}  // namespace

void add_device_request_routes(Context& c) {
  c.add(allowed("listDeviceRequests", "GET", "/v1/device-requests", Permission::kKeysRead),
        list_requests);
  c.add(allowed("getDeviceRequest", "GET", "/v1/device-requests/{id}", Permission::kKeysRead),
        get_request);
  c.add(allowed("approveDeviceRequest", "POST", "/v1/device-requests/{id}/actions/approve",
                Permission::kKeysWrite),
        approve);
  c.add(allowed("rejectDeviceRequest", "POST", "/v1/device-requests/{id}/actions/reject",
                Permission::kKeysWrite),
        reject);
}

}  // namespace flock::targets::api

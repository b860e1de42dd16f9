// SPDX-License-Identifier: Apache-2.0
// Devices: lists, one of them, what people write about it, and its history.
#include <algorithm>

#include "stores/postgres/device_query.h"
#include "targets/api/devices.h"

namespace flock::targets::api {
namespace {

constexpr std::size_t kMostAttributes = 64;

domain::Filter equal(std::string field, std::string value) {
  return {domain::Filter::Kind::kTerm,
          {},
          {std::move(field), "", domain::Operator::kEqual, std::move(value)}};
}

// `filter`, and the parameters that stand for a comparison of their own.
domain::Filter read_filter(const net::Request& request) {
  const domain::Filter given =
      domain::parse_filter(request.query("filter").value_or(""), postgres::device_fields());
  domain::Filter all{domain::Filter::Kind::kAnd};
  if (given.kind == domain::Filter::Kind::kAnd)
    all.parts = given.parts;
  else
    all.parts.push_back(given);
  const std::string state = request.query("state").value_or("");
  if (!state.empty()) {
    const domain::Field* field = domain::find_field(postgres::device_fields(), "state");
    if (std::find(field->values.begin(), field->values.end(), state) == field->values.end())
      throw bad_parameter("state", "must be ONLINE, OFFLINE, REVOKED or DECOMMISSIONED");
    all.parts.push_back(equal("state", state));
  }
  const std::string fleet = request.query("fleet_id").value_or("");
  if (!fleet.empty()) all.parts.push_back(equal(is_uuid(fleet) ? "fleet_id" : "fleet", fleet));
  return all;
}

Task<net::Reply> list_devices(Call& call) {
  const net::Request& request = call.request;
  allow_query(request, {"page_size", "page_token", "filter", "order_by", "fleet_id", "state"});
  const domain::FieldTable& fields = postgres::device_fields();
  postgres::DevicePage page{read_filter(request),
                            domain::parse_order(request.query("order_by").value_or(""), fields),
                            {},
                            read_page_size(request)};
  const std::string bound = domain::to_text(page.filter);
  if (const auto token = request.query("page_token"); token && !token->empty())
    page.after = domain::decode_cursor(*token, page.order, fields, bound);
  const std::int64_t size = page.limit++;  // one more says that there is another page
  const postgres::Statement statement =
      postgres::device_page(call.who.org, page, system_clock().now());
  auto rows = co_await call.query(statement.text.c_str(), statement.params);
  std::string next;
  if (static_cast<std::int64_t>(rows.rows.size()) > size) {
    rows.rows.pop_back();
    domain::CursorKeys keys;
    for (std::size_t i = 0; i < page.order.size(); ++i)
      keys.push_back(rows.rows.back().optional_text("key" + std::to_string(i)));
    next = domain::encode_cursor(page.order, bound, keys);
  }
  bj::array items = co_await devices_json(call.context, rows);
  co_return json_reply(200, bj::object{{"items", std::move(items)}, {"next_page_token", next}});
}

// A merge patch (RFC 7396): what it does not name stays, null takes away.
struct Patch {
  std::optional<std::string> name, notes;
  bool clear_labels = false, clear_attributes = false;
  bj::object labels, attributes;
  std::vector<std::string> without_labels, without_attributes;
};

void read_attributes(json::Reader& in, Patch& patch) {
  const bj::object* given = in.optional_object("attributes");
  if (given == nullptr) return;
  for (const auto& [name, value] : *given) {
    const bj::string* text = value.if_string();
    if (name.empty() || name.size() > 63 || name.find('\0') != bj::string_view::npos)
      in.problem("attributes", "invalid", "keys have 1 to 63 bytes without NUL");
    else if (value.is_null())
      patch.without_attributes.emplace_back(name);
    else if (text && (text->size() > 255 || text->find('\0') != bj::string::npos))
      in.problem("attributes", "invalid", std::string(name) + ": at most 255 bytes without NUL");
    else if (!text && !value.is_number() && !value.is_bool())
      in.problem("attributes", "wrong_type",
                 std::string(name) + ": must be a text, a number, true or false");
    else
      patch.attributes[name] = value;
  }
}

Patch read_patch(const bj::value& body) {
  json::Reader in(body);
  const bj::object* object = body.if_object();
  const auto is_null = [&](const char* key) {
    const bj::value* value = object ? object->if_contains(key) : nullptr;
    return value != nullptr && value->is_null();
  };
  Patch patch;
  patch.name = in.optional_string("name", {.min = 1, .max = 100});
  if (is_null("name")) in.problem("name", "invalid", "a device always has a name");
  patch.notes = in.optional_string("notes", {.min = 0, .max = 4000});
  if (is_null("notes")) patch.notes = "";
  patch.clear_labels = is_null("labels");
  patch.clear_attributes = is_null("attributes");
  patch.labels = read_labels(in, "labels", &patch.without_labels);
  read_attributes(in, patch);
  in.finish();
  return patch;
}

bj::object merged(const bj::object& before, bool clear, const std::vector<std::string>& without,
                  const bj::object& with) {
  bj::object out;
  if (!clear) out = before;
  for (const std::string& key : without) out.erase(key);
  for (const auto& [key, value] : with) out[key] = value;
  return out;
}

Task<net::Reply> update_device(Call& call) {
  const bj::value body = read_body(call.request);
  const Patch patch = read_patch(body);
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const bj::object before = co_await find_device_in(tx, call, call.parameter("id"));
    call.check_match(before, kDevicePassing);
    const std::string id = text_of(before, "id"), old_name = text_of(before, "name"),
                      name = patch.name.value_or(old_name);
    const bj::value* notes = before.if_contains("notes");
    const bj::object labels = merged(before.at("labels").as_object(), patch.clear_labels,
                                     patch.without_labels, patch.labels),
                     attributes =
                         merged(before.at("attributes").as_object(), patch.clear_attributes,
                                patch.without_attributes, patch.attributes);
    if (labels.size() > kMostLabels)
      throw Error(Code::kUnprocessable, "the device would have more than 64 labels");
    if (attributes.size() > kMostAttributes)
      throw Error(Code::kUnprocessable, "the device would have more than 64 attributes");
    co_await tx.query(
        sql::kDeviceUpdate,
        Params()
            .text(call.org())
            .text(id)
            .text(name)
            .text(bj::serialize(labels))
            .text(bj::serialize(attributes))
            .text(patch.notes.value_or(notes ? std::string(notes->as_string()) : "")));
    const bj::object now = co_await find_device_in(tx, call, id);
    bj::object change{{"change", body}};
    if (name != old_name) change["before"] = old_name;
    co_await remember(tx, call, id, name != old_name ? "RENAMED" : "UPDATED", change);
    co_return Change{"device", id, name, call.answer(200, now, kDevicePassing), change};
  };
  co_return co_await call.mutate(work);
}

// Also of a device that was removed, by its id.
Task<net::Reply> list_history(Call& call) {
  allow_query(call.request, {"page_size", "page_token"});
  const Page page = read_page(call.request);
  const std::int64_t after = number_after(page);
  std::string id = call.parameter("id");
  const bool known =
      is_uuid(id) &&
      !(co_await call.query(sql::kDeviceAny, Params().text(call.org()).text(id))).empty();
  if (!known) id = text_of(co_await find_device(call, id), "id");
  const auto rows =
      co_await call.query(sql::kDeviceHistory,
                          Params().text(call.org()).text(id).integer(after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) {
    bj::object item{{"id", row.text("id")},
                    {"kind", row.text("kind")},
                    {"actor", row.text("actor")},
                    {"detail", json::parse(row.text("detail"))}};
    set_time(item, "at", row.time("at"));
    items.push_back(std::move(item));
  }
  co_return list_reply(std::move(items), page);
}

}  // namespace

void add_device_routes(Context& c) {
  c.add(allowed("listDevices", "GET", "/v1/devices", Permission::kDevicesRead), list_devices);
  c.add(allowed("updateDevice", "PATCH", "/v1/devices/{id}", Permission::kDevicesWrite),
        update_device);
  c.add(allowed("listDeviceHistory", "GET", "/v1/devices/{id}/history", Permission::kDevicesRead),
        list_history);
  add_device_live_routes(c);
  add_device_actions(c);
}

}  // namespace flock::targets::api

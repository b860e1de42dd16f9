// SPDX-License-Identifier: Apache-2.0
// Provisioning keys, and the devices that some of them know beforehand.
#include <algorithm>

#include "base/bytes.h"
#include "domain/networks.h"
#include "targets/api/call.h"

namespace flock::targets::api {
namespace {

constexpr Duration kLongestKey{std::int64_t{3650} * 86'400'000};
constexpr std::size_t kMostLabels = 64, kMostNetworks = 64;
constexpr json::Reader::Range kUses{.min = 1, .max = 1'000'000'000};
// They change with every device that comes in.
constexpr std::string_view kPassing[] = {"uses"};

bj::object key_json(const Row& row) {
  bj::object out{{"id", row.text("id")},
                 {"fleet_id", row.text("fleet_id")},
                 {"name", row.text("name")},
                 {"prefix", row.text("prefix")},
                 {"uses", row.integer("uses")},
                 {"mode", row.text("mode")},
                 {"approval_required", row.boolean("approval_required")},
                 {"allowed_networks", json::parse(row.text("allowed_networks"))},
                 {"labels", json::parse(row.text("labels"))}};
  if (const auto most = row.optional_integer("max_uses")) out["max_uses"] = *most;
  set_time(out, "expires_at", row.optional_time("expires_at"));
  set_time(out, "revoked_at", row.optional_time("revoked_at"));
  set_time(out, "created_at", row.time("created_at"));
  return out;
}

Task<Row> find_key_in(postgres::Transaction& tx, const Call& call, const char* statement,
                      std::string id) {
  const auto rows = co_await tx.query(statement, Params().text(call.org()).text(id));
  if (rows.empty())
    throw Error(Code::kNotFound, "no such provisioning key")
        .with("id", id)
        .hint("flock keys lists them");
  co_return rows.rows.front();
}

std::string key_id(const Call& call) { return KeyId::parse(call.parameter("id")).text(); }

Task<net::Reply> list_keys(Call& call) {
  allow_query(call.request, {"page_size", "page_token"});
  const Page page = read_page(call.request);
  const auto rows = co_await call.query(
      sql::kProvisioningKeyList, Params().text(call.org()).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(key_json(row));
  co_return list_reply(std::move(items), page);
}

Task<net::Reply> get_key(Call& call) {
  const std::string id = key_id(call);
  const auto rows =
      co_await call.query(sql::kProvisioningKeyGet, Params().text(call.org()).text(id));
  if (rows.empty()) throw Error(Code::kNotFound, "no such provisioning key").with("id", id);
  co_return call.answer(200, key_json(rows.rows.front()), kPassing);
}

bool is_label_key(std::string_view key) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' ||
           c == '/';
  };
  return !key.empty() && key.size() <= 63 && std::all_of(key.begin(), key.end(), plain);
}

bj::object read_labels(json::Reader& in) {
  const bj::object* given = in.optional_object("labels");
  if (given == nullptr) return {};
  if (given->size() > kMostLabels)
    in.problem("labels", "too_many", "has at most " + std::to_string(kMostLabels) + " labels");
  for (const auto& label : *given) {
    if (!is_label_key(label.key()))
      in.problem("labels", "invalid",
                 "a key has 1 to 63 lower-case letters, digits and - _ . / only");
    const bj::string* text = label.value().if_string();
    if (text == nullptr || text->size() > 255 || text->find('\0') != bj::string::npos)
      item_problem(in, "labels", label.key(), "must be text of at most 255 bytes without NUL");
  }
  return *given;
}

std::vector<std::string> read_networks(json::Reader& in) {
  std::vector<std::string> networks =
      in.optional_strings("allowed_networks", kMostNetworks, {.min = 1, .max = 64});
  for (std::size_t i = 0; i < networks.size(); ++i) {
    if (!domain::parse_network(networks[i]))
      item_problem(in, "allowed_networks", std::to_string(i),
                   "must be a network like 10.0.0.0/8 or 2001:db8::/32, without bits behind the "
                   "prefix, or one address");
  }
  return networks;
}

std::optional<std::string> number(const std::optional<std::int64_t>& value) {
  return value ? std::optional(std::to_string(*value)) : std::nullopt;
}

Task<net::Reply> create_key(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::string fleet_name = in.string("fleet_id", {.min = 1, .max = 63}),
                    name = in.optional_string("name", {.min = 1, .max = 100}).value_or("key"),
                    mode = in.optional_string("mode").value_or("OPEN");
  const auto uses = in.optional_integer("max_uses", kUses);
  const auto expires = read_expiry(in, "expires_in", kLongestKey);
  const auto networks = read_networks(in);
  const bj::object labels = read_labels(in);
  const bool approval = in.optional_boolean("approval_required").value_or(false);
  if (mode != "OPEN" && mode != "PREREGISTERED")
    in.problem("mode", "invalid", "must be OPEN or PREREGISTERED");
  in.finish();
  const services::FreshKey key = services::make_key("flp_");
  const std::string id = new_uuid();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const Row fleet = co_await find_fleet_in(tx, call, fleet_name);
    Params params;
    params.text(id).text(call.org()).text(fleet.text("id")).text(name);
    params.text(key.prefix).bytes(key.hash).text(number(uses)).time(expires);
    params.texts(networks).text(bj::serialize(labels)).boolean(approval).text(mode);
    co_await tx.query(sql::kProvisioningKeyInsert, std::move(params));
    const Row made = co_await find_key_in(tx, call, sql::kProvisioningKeyGet, id);
    bj::object out = key_json(made);
    bj::object detail{{"fleet", fleet.text("slug")}, {"mode", mode}, {"approval", approval}};
    detail["allowed_networks"] = out.at("allowed_networks");
    out["secret"] = key.secret;
    co_return Change{"provisioning_key", id, name, json_reply(201, out), std::move(detail)};
  };
  co_return co_await call.mutate(work);
}

Task<net::Reply> change_key(Call& call) {
  const std::string id = key_id(call);
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const auto name = in.optional_string("name", {.min = 1, .max = 100});
  const auto uses = in.optional_integer("max_uses", kUses);
  const auto expires = read_expiry(in, "expires_in", kLongestKey);
  if (body.is_object() && body.as_object().empty())
    in.problem("", "required", "must have a name, max_uses or expires_in");
  in.finish();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const Row before = co_await find_key_in(tx, call, sql::kProvisioningKeyLock, id);
    call.check_match(key_json(before), kPassing);
    if (before.optional_time("revoked_at"))
      throw Error(Code::kConflict, "the provisioning key was revoked").hint("make another");
    co_await tx.query(sql::kProvisioningKeyChange,
                      Params()
                          .text(call.org())
                          .text(id)
                          .text(name.value_or(before.text("name")))
                          .text(number(uses ? uses : before.optional_integer("max_uses")))
                          .time(expires ? expires : before.optional_time("expires_at")));
    const Row now = co_await find_key_in(tx, call, sql::kProvisioningKeyGet, id);
    co_return Change{"provisioning_key", id, now.text("name"),
                     call.answer(200, key_json(now), kPassing), bj::object(body.as_object())};
  };
  co_return co_await call.mutate(work);
}

Task<net::Reply> revoke_key(Call& call) {
  const std::string id = key_id(call);
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const Row row = co_await find_key_in(tx, call, sql::kProvisioningKeyLock, id);
    co_await tx.query(sql::kProvisioningKeyRevoke, Params().text(call.org()).text(id));
    co_return Change{"provisioning_key", id, row.text("name"), json_reply(204, nullptr)};
  };
  co_return co_await call.mutate(work);
}

// --- Devices known beforehand
// ---------------------------------------------------------------------

bj::object preregistration_json(const Row& row) {
  bj::object out{{"id", row.text("id")},
                 {"provisioning_key_id", row.text("key_id")},
                 {"fleet_id", row.text("fleet_id")},
                 {"thumbprint", row.text("thumbprint")}};
  if (const auto name = row.optional_text("name")) out["name"] = *name;
  if (const auto device = row.optional_text("device_id")) out["device_id"] = *device;
  set_time(out, "created_at", row.time("created_at"));
  return out;
}

// From `public_key` (PEM) or `thumbprint` (RFC 7638, base64url of SHA-256); exactly one of both.
std::string read_thumbprint(json::Reader& in) {
  const auto pem = in.optional_string("public_key", {.min = 1, .max = 2000});
  const auto print = in.optional_string("thumbprint", {.min = 43, .max = 43});
  if (pem.has_value() == print.has_value()) {
    in.problem("public_key", "required", "give public_key or thumbprint, one of both");
    return "";
  }
  if (print) {
    const auto raw = from_base64url(*print);
    if (!raw || raw->size() != 32)
      in.problem("thumbprint", "invalid", "must be the base64url of 32 bytes");
    return *print;
  }
  try {
    return crypto::Key::from_public_pem(*pem).thumbprint();
  } catch (const Error& error) {
    in.problem("public_key", "invalid", error.message());
    return "";
  }
}

Task<net::Reply> list_preregistrations(Call& call) {
  allow_query(call.request, {"page_size", "page_token"});
  const Page page = read_page(call.request);
  const std::string id = key_id(call);
  const auto keys =
      co_await call.query(sql::kProvisioningKeyGet, Params().text(call.org()).text(id));
  if (keys.empty()) throw Error(Code::kNotFound, "no such provisioning key").with("id", id);
  const auto rows = co_await call.query(
      sql::kPreregistrationList,
      Params().text(call.org()).text(id).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(preregistration_json(row));
  co_return list_reply(std::move(items), page);
}

Task<net::Reply> create_preregistration(Call& call) {
  const std::string key = key_id(call);
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::string thumbprint = read_thumbprint(in);
  const auto name = in.optional_string("name", {.min = 1, .max = 100});
  const auto fleet_name = in.optional_string("fleet_id", {.min = 1, .max = 63});
  in.finish();
  const std::string id = new_uuid();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const Row of = co_await find_key_in(tx, call, sql::kProvisioningKeyLock, key);
    if (of.text("mode") != "PREREGISTERED")
      throw Error(Code::kConflict, "the provisioning key admits every device")
          .hint("make one with the mode PREREGISTERED");
    const Row fleet = co_await find_fleet_in(tx, call, fleet_name.value_or(of.text("fleet_id")));
    Params params;
    params.text(id).text(call.org()).text(key).text(fleet.text("id")).text(thumbprint).text(name);
    try {
      co_await tx.query(sql::kPreregistrationInsert, std::move(params));
    } catch (const Error& error) {
      if (error.code() != Code::kConflict) throw;
      throw Error(Code::kConflict, "the device is known to this key already")
          .with("thumbprint", thumbprint);
    }
    const auto rows =
        co_await tx.query(sql::kPreregistrationGet, Params().text(call.org()).text(key).text(id));
    co_return Change{"preregistration",
                     id,
                     name.value_or(thumbprint),
                     call.answer(201, preregistration_json(rows.rows.at(0))),
                     {{"thumbprint", thumbprint}, {"provisioning_key", key}}};
  };
  co_return co_await call.mutate(work);
}

Task<net::Reply> delete_preregistration(Call& call) {
  const std::string key = key_id(call), id = KeyId::parse(call.parameter("device")).text();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const auto rows =
        co_await tx.query(sql::kPreregistrationGet, Params().text(call.org()).text(key).text(id));
    if (rows.empty()) throw Error(Code::kNotFound, "no such preregistration").with("id", id);
    co_await tx.query(sql::kPreregistrationDelete, Params().text(call.org()).text(id));
    co_return Change{"preregistration",
                     id,
                     rows.rows.front().text("thumbprint"),
                     json_reply(204, nullptr),
                     {{"provisioning_key", key}}};
  };
  co_return co_await call.mutate(work);
}

}  // namespace

void add_provisioning_key_routes(Context& c) {
  const Permission read = Permission::kKeysRead, write = Permission::kKeysWrite;
  c.add(allowed("listProvisioningKeys", "GET", "/v1/provisioning-keys", read), list_keys);
  c.add(allowed("createProvisioningKey", "POST", "/v1/provisioning-keys", write), create_key);
  c.add(allowed("getProvisioningKey", "GET", "/v1/provisioning-keys/{id}", read), get_key);
  c.add(allowed("changeProvisioningKey", "PATCH", "/v1/provisioning-keys/{id}", write), change_key);
  c.add(allowed("revokeProvisioningKey", "DELETE", "/v1/provisioning-keys/{id}", write),
        revoke_key);
  c.add(allowed("listPreregistrations", "GET", "/v1/provisioning-keys/{id}/devices", read),
        list_preregistrations);
  c.add(allowed("createPreregistration", "POST", "/v1/provisioning-keys/{id}/devices", write),
        create_preregistration);
  c.add(allowed("deletePreregistration", "DELETE", "/v1/provisioning-keys/{id}/devices/{device}",
                write),
        delete_preregistration);
}

}  // namespace flock::targets::api

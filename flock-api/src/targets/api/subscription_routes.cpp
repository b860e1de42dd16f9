// SPDX-License-Identifier: Apache-2.0
// Event subscriptions: where customers want to be told of what happens (Standard Webhooks).
#include "base/bytes.h"
#include "base/random.h"
#include "domain/filter.h"
#include "services/sealing.h"
#include "stores/webhooks/webhooks.h"
#include "targets/api/call.h"

namespace flock::targets::api {
namespace {

constexpr std::size_t kMostTypes = 64;
constexpr std::size_t kSecretBytes = 32;  // Standard Webhooks: 24 to 64

struct Subscription {
  std::string name, url, filter;
  std::vector<std::string> event_types;
  bool enabled = true;
};

// What the filter of a subscription may speak of: the members that every event has.
const domain::FieldTable& event_fields() {
  using domain::FieldType;
  static const domain::FieldTable fields = {
      {"type", FieldType::kText, "", {}, false, false},
      {"device", FieldType::kId, ""},
      {"fleet", FieldType::kText, ""},
      {"release", FieldType::kVersion, ""},
      {"labels", FieldType::kLabels, ""},
  };
  return fields;
}

// "rollout.completed", "rollout.*" or "*".
bool is_event_type(std::string_view type) {
  if (type == "*") return true;
  const std::size_t dot = type.find('.');
  if (dot == std::string_view::npos || dot == 0) return false;
  const auto plain = [](std::string_view part) {
    return !part.empty() && std::all_of(part.begin(), part.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
    });
  };
  const std::string_view rest = type.substr(dot + 1);
  return plain(type.substr(0, dot)) && (rest == "*" || plain(rest));
}

void read_event_types(json::Reader& in, std::vector<std::string>& out) {
  out = in.optional_strings("event_types", kMostTypes, {.min = 1, .max = 100});
  if (out.empty()) in.problem("event_types", "required", "must name an event type; * is every one");
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (!is_event_type(out[i]))
      item_problem(in, "event_types", std::to_string(i),
                   "must be like rollout.completed, rollout.* or *");
  }
}

// Reads what is there into `out`; with `whole`, what must be there.
void read_subscription(const Call& call, json::Reader& in, Subscription& out, bool whole) {
  if (whole)
    out.name = in.string("name", {.min = 1, .max = 100});
  else
    out.name = in.optional_string("name", {.min = 1, .max = 100}).value_or(out.name);
  const auto url = whole ? std::optional(in.string("url", {.min = 1, .max = 2000}))
                         : in.optional_string("url", {.min = 1, .max = 2000});
  if (url && !url->empty()) {
    out.url = *url;
    if (const std::string fault =
            stores::webhook_fault(webhook_rules(call.context.parts.settings), *url);
        !fault.empty())
      in.problem("url", "invalid", fault);
  }
  if (whole || in.optional_value("event_types") != nullptr) read_event_types(in, out.event_types);
  if (const auto filter = in.optional_string("filter", {.min = 0, .max = 4096})) {
    try {
      out.filter = domain::to_text(domain::parse_filter(*filter, event_fields()));
    } catch (const Error& error) {
      for (const Problem& problem : error.problems())
        in.problem("filter", problem.code, problem.detail);
    }
  }
  out.enabled = in.optional_boolean("enabled").value_or(out.enabled);
}

bj::object subscription_json(const Row& row) {
  bj::object out{
      {"id", row.text("id")},         {"name", row.text("name")},
      {"url", row.text("url")},       {"event_types", json::parse(row.text("event_types"))},
      {"filter", row.text("filter")}, {"enabled", row.boolean("enabled")}};
  set_time(out, "previous_secret_expires_at", row.optional_time("previous_secret_expires_at"));
  set_time(out, "created_at", row.time("created_at"));
  set_time(out, "updated_at", row.time("updated_at"));
  return out;
}

// A secret key: never in the audit log, never in an answer but the one that made it.
std::string make_secret() { return "whsec_" + to_base64(random_bytes(kSecretBytes)); }
// It signs, so it cannot be kept as a hash.
std::string sealed(const Call& call, const std::string& id, const std::string& secret) {
  return keys_of(call.context.parts).seal(secret, services::subscription_context(call.org(), id));
}

Row only(const postgres::Rows& rows, const std::string& id) {
  if (rows.empty())
    throw Error(Code::kNotFound, "no such event subscription")
        .with("id", id)
        .hint("flock subscriptions lists them");
  return rows.rows.front();
}

std::string subscription_id(const Call& call) { return KeyId::parse(call.parameter("id")).text(); }

Task<void> store(postgres::Transaction& tx, const char* statement, Params params) {
  try {
    co_await tx.query(statement, std::move(params));
  } catch (const Error& error) {
    if (error.code() != Code::kConflict) throw;
    throw Error(Code::kConflict, "there is an event subscription of this name already");
  }
}

Task<net::Reply> list_subscriptions(Call& call) {
  allow_query(call.request, {"page_size", "page_token"});
  const Page page = read_page(call.request);
  const auto rows = co_await call.query(
      sql::kSubscriptionList, Params().text(call.org()).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(subscription_json(row));
  co_return list_reply(std::move(items), page);
}

Task<net::Reply> get_subscription(Call& call) {
  const std::string id = subscription_id(call);
  const auto rows = co_await call.query(sql::kSubscriptionGet, Params().text(call.org()).text(id));
  co_return call.answer(200, subscription_json(only(rows, id)));
}

bj::object detail_of(const Subscription& subscription) {
  bj::array types;
  for (const std::string& type : subscription.event_types) types.push_back(bj::value(type));
  return {{"url", subscription.url},
          {"event_types", std::move(types)},
          {"filter", subscription.filter},
          {"enabled", subscription.enabled}};
}

Task<net::Reply> create_subscription(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  Subscription wanted;
  read_subscription(call, in, wanted, true);
  in.finish();
  const std::string id = new_uuid(), secret = make_secret();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    Params params;
    params.text(id).text(call.org()).text(wanted.name).text(wanted.url).texts(wanted.event_types);
    params.text(wanted.filter).boolean(wanted.enabled).text(sealed(call, id, secret));
    co_await store(tx, sql::kSubscriptionInsert, std::move(params));
    const auto rows = co_await tx.query(sql::kSubscriptionGet, Params().text(call.org()).text(id));
    bj::object out = subscription_json(only(rows, id));
    out["secret"] = secret;
    co_return Change{"event_subscription", id, wanted.name, json_reply(201, out),
                     detail_of(wanted)};
  };
  co_return co_await call.mutate(work);
}

Task<net::Reply> change_subscription(Call& call) {
  const std::string id = subscription_id(call);
  const bj::value body = read_body(call.request);
  {
    // What is wrong with the request is said before anything is looked up.
    json::Reader in(body);
    Subscription unused;
    read_subscription(call, in, unused, false);
    in.finish();
  }
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const auto found =
        co_await tx.query(sql::kSubscriptionLock, Params().text(call.org()).text(id));
    const Row before = only(found, id);
    call.check_match(subscription_json(before));
    Subscription wanted{before.text("name"),
                        before.text("url"),
                        before.text("filter"),
                        {},
                        before.boolean("enabled")};
    for (const bj::value& type : json::parse(before.text("event_types")).as_array())
      wanted.event_types.emplace_back(type.as_string());
    json::Reader in(body);
    read_subscription(call, in, wanted, false);
    in.finish();
    Params params;
    params.text(call.org()).text(id).text(wanted.name).text(wanted.url).texts(wanted.event_types);
    params.text(wanted.filter).boolean(wanted.enabled);
    co_await store(tx, sql::kSubscriptionChange, std::move(params));
    const auto rows = co_await tx.query(sql::kSubscriptionGet, Params().text(call.org()).text(id));
    co_return Change{"event_subscription", id, wanted.name,
                     call.answer(200, subscription_json(only(rows, id))), detail_of(wanted)};
  };
  co_return co_await call.mutate(work);
}

Task<net::Reply> rotate_secret(Call& call) {
  const std::string id = subscription_id(call), secret = make_secret();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const auto found =
        co_await tx.query(sql::kSubscriptionLock, Params().text(call.org()).text(id));
    const Row before = only(found, id);
    call.check_match(subscription_json(before));
    co_await tx.query(sql::kSubscriptionRotate,
                      Params().text(call.org()).text(id).text(sealed(call, id, secret)));
    const auto rows = co_await tx.query(sql::kSubscriptionGet, Params().text(call.org()).text(id));
    bj::object out = subscription_json(only(rows, id));
    out["secret"] = secret;
    co_return Change{"event_subscription", id, before.text("name"), json_reply(200, out)};
  };
  co_return co_await call.mutate(work);
}

Task<net::Reply> delete_subscription(Call& call) {
  const std::string id = subscription_id(call);
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const auto found =
        co_await tx.query(sql::kSubscriptionLock, Params().text(call.org()).text(id));
    const Row before = only(found, id);
    call.check_match(subscription_json(before));
    co_await tx.query(sql::kSubscriptionDelete, Params().text(call.org()).text(id));
    co_return Change{"event_subscription", id, before.text("name"), json_reply(204, nullptr)};
  };
  co_return co_await call.mutate(work);
}

}  // namespace

void add_subscription_routes(Context& c) {
  const Permission read = Permission::kSubscriptionsRead, write = Permission::kSubscriptionsWrite;
  c.add(allowed("listEventSubscriptions", "GET", "/v1/event-subscriptions", read),
        list_subscriptions);
  c.add(allowed("createEventSubscription", "POST", "/v1/event-subscriptions", write),
        create_subscription);
  c.add(allowed("getEventSubscription", "GET", "/v1/event-subscriptions/{id}", read),
        get_subscription);
  c.add(allowed("changeEventSubscription", "PATCH", "/v1/event-subscriptions/{id}", write),
        change_subscription);
  c.add(allowed("deleteEventSubscription", "DELETE", "/v1/event-subscriptions/{id}", write),
        delete_subscription);
  c.add(allowed("rotateEventSubscriptionSecret", "POST",
                "/v1/event-subscriptions/{id}/actions/rotate-secret", write),
        rotate_secret);
}

}  // namespace flock::targets::api

// SPDX-License-Identifier: Apache-2.0
#include "targets/api/call.h"

#include <algorithm>

#include "async/loop.h"
#include "base/bytes.h"
#include "base/log.h"
#include "crypto/keys.h"

namespace flock::targets::api {
namespace {

constexpr int kLooksForCommit = 10;

std::string etag_of(const bj::object& resource, std::span<const std::string_view> passing) {
  std::string stable;
  for (const auto& member : resource) {
    if (std::find(passing.begin(), passing.end(), std::string_view(member.key())) != passing.end())
      continue;
    stable += member.key();
    stable += bj::serialize(member.value());
  }
  return '"' + to_hex(crypto::sha256(stable)).substr(0, 16) + '"';
}

// A list of entity tags or `*` (RFC 9110, 8.8.3).
bool names_tag(std::string_view list, const std::string& tag) {
  if (list == "*") return true;
  while (!list.empty()) {
    std::string_view one = list.substr(0, list.find(','));
    list.remove_prefix(std::min(list.size(), one.size() + 1));
    while (one.starts_with(' ')) one.remove_prefix(1);
    while (one.ends_with(' ')) one.remove_suffix(1);
    if (one.starts_with("W/")) one.remove_prefix(2);
    if (one == tag) return true;
  }
  return false;
}

std::string idempotency_key(const net::Request& request) {
  const auto key = request.headers.get("Idempotency-Key");
  if (!key || request.method != "POST") return "";
  const bool plain =
      !key->empty() && key->size() <= 255 &&
      std::all_of(key->begin(), key->end(), [](char c) { return c > ' ' && c < 127; });
  if (!plain)
    throw Error(Code::kInvalidArgument,
                "Idempotency-Key must be 1 to 255 printable ASCII characters without spaces");
  return std::string(*key);
}

std::string fingerprint(const net::Request& request) {
  return crypto::sha256(request.target + "\n" + request.body);
}

}  // namespace

Scope Call::scope() const {
  return who.fleets ? Scope::fleets(who.org, *who.fleets) : Scope::tenant(who.org);
}

const std::string& Call::parameter(std::string_view name) const {
  const auto found = parameters.find(name);
  FLOCK_ASSERT(found != parameters.end());
  return found->second;
}

bool Call::validate_only() const {
  const auto given = request.query("validate_only");
  if (!given || *given == "false") return false;
  if (*given == "true") return true;
  throw Error(Code::kInvalidArgument, "validate_only must be true or false");
}

Task<net::Reply> Call::mutate(Work work, After after) {
  co_return co_await mutate_in(scope(), std::move(work), std::move(after));
}

Task<net::Reply> Call::mutate_in(Scope scope, Work work, After after) {
  const bool dry = validate_only();
  const std::string key = dry || who.org.empty() ? "" : idempotency_key(request);
  std::optional<internal::v1::AuditEvent> announced;
  std::string transaction_id;
  net::Reply reply;
  bool replayed = false;
  const auto attempt = [&](postgres::Transaction& tx) -> Task<void> {
    if (announced) {  // a serialization failure: the first attempt changed nothing
      co_await context.audit.aborted(*announced);
      announced.reset();
    }
    if (!key.empty()) {
      if (auto earlier = co_await replay(tx, key)) {
        reply = std::move(*earlier);
        replayed = true;
        co_return;
      }
    }
    Change change = co_await work(tx);
    internal::v1::AuditEvent event = event_of(change);
    reply = std::move(change.reply);
    if (dry) {
      tx.roll_back();
      co_return;
    }
    if (!key.empty()) co_await remember(tx, key, reply);
    const auto current = co_await tx.query(sql::kTransactionId);
    transaction_id = current.rows.at(0).text("id");
    co_await context.audit.record(event);
    announced = std::move(event);
  };
  std::exception_ptr failure;
  try {
    co_await context.parts.db.transaction(std::move(scope), attempt);
  } catch (const Error&) {
    failure = std::current_exception();
  }
  if (failure && announced && !co_await was_committed(transaction_id)) {
    co_await context.audit.aborted(*announced);
    std::rethrow_exception(failure);
  }
  if (failure && !announced) std::rethrow_exception(failure);
  if (dry) {
    reply.response.headers.add("Flock-Validate-Only", "true");
    co_return reply;
  }
  if (after && !replayed) co_await after();
  co_return reply;
}

// A connection that was lost at the commit does not say how it went. PostgreSQL remembers.
Task<bool> Call::was_committed(std::string transaction_id) const {
  for (int look = 0; look < kLooksForCommit; ++look) {
    try {
      const auto rows = co_await context.parts.db.query(Scope::system(), sql::kTransactionStatus,
                                                        Params().text(transaction_id));
      const auto status = rows.rows.at(0).optional_text("status");
      if (status == "committed") co_return true;
      if (status == "aborted") co_return false;
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
    }
    co_await sleep_for(Duration(300));
  }
  log::error("it is not known whether a change was committed", {{"request_id", id}});
  co_return false;
}

internal::v1::AuditEvent Call::event_of(const Change& change) const {
  using Event = internal::v1::AuditEvent;
  Event event;
  event.set_id(new_uuid());
  event.set_org_id(change.org ? change.org->text() : org());
  event.set_at_ms(to_unix_ms(system_clock().now()));
  event.set_actor_kind(who.kind == Principal::Kind::kUser     ? Event::USER
                       : who.kind == Principal::Kind::kApiKey ? Event::API_KEY
                                                              : Event::UNKNOWN);
  event.set_actor_id(who.id);
  event.set_actor_name(who.email.empty() ? who.name : who.email);
  event.set_action(operation.id);
  event.set_resource_type(change.resource_type);
  event.set_resource_id(change.resource_id);
  event.set_resource_name(change.resource_name);
  event.set_request_id(id);
  event.set_ip(request.peer.substr(0, request.peer.rfind(':')));
  if (!change.detail.empty()) event.set_detail_json(bj::serialize(change.detail));
  return event;
}

Task<std::optional<net::Reply>> Call::replay(postgres::Transaction& tx,
                                             const std::string& key) const {
  const crypto::SealingKeys& keys = keys_of(context.parts);
  const std::string place = answer_context(key);
  // Waits for another request with the same key that is still under way.
  const auto fresh = co_await tx.query(sql::kIdempotencyInsert,
                                       Params()
                                           .text(org())
                                           .text(who.key())
                                           .text(operation.id)
                                           .text(key)
                                           .bytes(keys.seal(fingerprint(request), place)));
  if (!fresh.empty()) co_return std::nullopt;
  const auto rows = co_await tx.query(
      sql::kIdempotencyGet, Params().text(org()).text(who.key()).text(operation.id).text(key));
  const Row* row = rows.first();
  if (row == nullptr || !row->optional_integer("status"))
    throw Error(Code::kConflict, "a request with this Idempotency-Key is under way");
  if (keys.open(row->bytes("fingerprint"), place) != fingerprint(request))
    throw Error(Code::kUnprocessable, "this Idempotency-Key was used for another request")
        .hint("take a fresh key for each thing you want to happen");
  net::Reply reply;
  reply.response.status = static_cast<int>(row->integer("status"));
  reply.response.headers.add("Content-Type", "application/json");
  reply.response.headers.add("Cache-Control", "no-store");
  reply.response.headers.add("Idempotent-Replayed", "true");
  reply.response.body = keys.open(row->bytes("answer"), place);
  co_return reply;
}

Task<void> Call::remember(postgres::Transaction& tx, const std::string& key,
                          const net::Reply& reply) const {
  co_await tx.query(
      sql::kIdempotencyStore,
      Params()
          .text(org())
          .text(who.key())
          .text(operation.id)
          .text(key)
          .integer(reply.response.status)
          .bytes(keys_of(context.parts).seal(reply.response.body, answer_context(key))));
}

// The answer may hold a fresh key, and the request's hash would tell a guess of a secret from
// another: both are stored sealed.
std::string Call::answer_context(const std::string& key) const {
  return "org/" + org() + "/answer/" + who.key() + "/" + operation.id + "/" + key;
}

net::Reply Call::answer(int status, const bj::object& resource,
                        std::span<const std::string_view> passing) const {
  const std::string tag = etag_of(resource, passing);
  const auto known = request.headers.get("If-None-Match");
  if (request.method == "GET" && passing.empty() && known && names_tag(*known, tag)) {
    net::Reply reply;
    reply.response.status = 304;
    reply.response.headers.add("ETag", tag);
    return reply;
  }
  net::Reply reply = json_reply(status, resource);
  reply.response.headers.add("ETag", tag);
  return reply;
}

void Call::check_match(const bj::object& resource,
                       std::span<const std::string_view> passing) const {
  const auto wanted = request.headers.get("If-Match");
  if (!wanted || names_tag(*wanted, etag_of(resource, passing))) return;
  throw Error(Code::kPreconditionFailed, "it was changed since you read it")
      .hint("read it again and decide anew");
}

}  // namespace flock::targets::api

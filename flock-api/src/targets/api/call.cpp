// SPDX-License-Identifier: Apache-2.0
#include "targets/api/call.h"

#include <algorithm>

#include "base/bytes.h"
#include "crypto/keys.h"
#include "services/audited.h"

namespace flock::targets::api {
namespace {

using internal::v1::AuditEvent;

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

std::string etag_of(const bj::object& resource, std::span<const std::string_view> passing) {
  std::string stable;
  for (const auto& member : resource) {
    if (std::find(passing.begin(), passing.end(), std::string_view(member.key())) != passing.end())
      continue;
    stable += member.key();
    if (const bj::string* text = member.value().if_string())
      json::append_quoted(stable, *text);
    else
      stable += bj::serialize(member.value());
  }
  return '"' + to_hex(crypto::sha256(stable)).substr(0, 16) + '"';
}

Scope Call::scope() const {
  return who.fleets ? Scope::fleets(who.org, *who.fleets) : Scope::tenant(who.org);
}

const std::string& Call::parameter(std::string_view name) const {
  const auto found = parameters.find(name);
  FLOCK_ASSERT(found != parameters.end());
  return found->second;
}

// Several X-Forwarded-For headers are one list (RFC 9110, 5.3).
std::optional<domain::Address> Call::client() const {
  std::string forwarded;
  for (const auto& [name, value] : request.headers.items()) {
    std::string lower = name;
    std::transform(lower.begin(), lower.end(), lower.begin(), ::tolower);
    if (lower == "x-forwarded-for") forwarded += (forwarded.empty() ? "" : ", ") + value;
  }
  return domain::client_address(request.peer, forwarded,
                                context.parts.settings.api_trusted_proxies);
}

bool Call::validate_only() const {
  const auto given = request.query("validate_only");
  if (!given || *given == "false") return false;
  if (*given == "true") return true;
  throw bad_parameter("validate_only", "must be true or false");
}

Task<net::Reply> Call::mutate(Work work, After after) {
  co_return co_await mutate_in(scope(), std::move(work), std::move(after));
}

Task<net::Reply> Call::mutate_in(Scope scope, Work work, After after) {
  const bool dry = validate_only();
  const bool owned = answers_person() || !who.org.empty();
  const std::string key = dry || !owned ? "" : idempotency_key(request);
  net::Reply reply;
  bool replayed = false;
  const auto audited = [&](postgres::Transaction& tx) -> Task<std::vector<AuditEvent>> {
    if (!key.empty()) {
      if (auto earlier = co_await replay(tx, key)) {
        reply = std::move(*earlier);
        replayed = true;
        co_return std::vector<AuditEvent>();
      }
    }
    Change change = co_await work(tx);
    AuditEvent event = event_of(change);
    reply = std::move(change.reply);
    if (dry) {
      tx.roll_back();
      co_return std::vector<AuditEvent>();
    }
    if (!key.empty()) co_await remember(tx, key, reply);
    co_return std::vector<AuditEvent>{std::move(event)};
  };
  co_await services::audited_transaction(context.parts.db, context.audit, std::move(scope),
                                         audited);
  if (dry) {
    reply.response.headers.add("Flock-Validate-Only", "true");
    co_return reply;
  }
  if (after && !replayed) co_await after();
  co_return reply;
}

internal::v1::AuditEvent Call::event_of(const Change& change) const {
  const auto actor = who.kind == Principal::Kind::kUser     ? AuditEvent::USER
                     : who.kind == Principal::Kind::kApiKey ? AuditEvent::API_KEY
                                                            : AuditEvent::UNKNOWN;
  AuditEvent event =
      services::audit_event(actor, change.org ? change.org->text() : org(), operation.id,
                            change.resource_type, change.resource_id, change.resource_name);
  event.set_actor_id(who.id);
  event.set_actor_name(who.email.empty() ? who.name : who.email);
  event.set_request_id(id);
  if (const auto from = client()) event.set_ip(domain::to_string(*from));
  if (!change.detail.empty()) event.set_detail_json(bj::serialize(change.detail));
  return event;
}

Task<std::optional<net::Reply>> Call::replay(postgres::Transaction& tx,
                                             const std::string& key) const {
  const crypto::SealingKeys& keys = keys_of(context.parts);
  const std::string place = answer_context(key);
  const bool person = answers_person();
  const std::string& owner = person ? who.id : org();
  Params params;
  params.text(person ? std::nullopt : std::optional(owner));
  params.text(person ? std::optional(owner) : std::nullopt);
  params.text(who.key()).text(operation.id).text(key);
  params.bytes(keys.seal(fingerprint(request), place));
  // Waits for another request with the same key that is still under way.
  const auto fresh = co_await tx.query(sql::kIdempotencyInsert, std::move(params));
  if (!fresh.empty()) co_return std::nullopt;
  const auto rows = co_await tx.query(
      sql::kIdempotencyGet, Params().text(owner).text(who.key()).text(operation.id).text(key));
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
          .text(answers_person() ? who.id : org())
          .text(who.key())
          .text(operation.id)
          .text(key)
          .integer(reply.response.status)
          .bytes(keys_of(context.parts).seal(reply.response.body, answer_context(key))));
}

bool Call::answers_person() const {
  return operation.access == Operation::Access::kSignedIn && who.kind == Principal::Kind::kUser;
}

// The answer may hold a fresh key, and the request's hash would tell a guess of a secret from
// another: both are stored sealed.
std::string Call::answer_context(const std::string& key) const {
  const std::string owner = answers_person() ? "person/" + who.id : "org/" + org();
  return owner + "/answer/" + who.key() + "/" + operation.id + "/" + key;
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
  return answer_text(status, bj::serialize(resource), tag);
}

net::Reply Call::answer_text(int status, std::string body, std::string etag) {
  net::Reply reply;
  reply.response.status = status;
  reply.response.headers.add("Content-Type", "application/json");
  reply.response.headers.add("Cache-Control", "no-store");
  reply.response.headers.add("ETag", std::move(etag));
  reply.response.body = std::move(body);
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

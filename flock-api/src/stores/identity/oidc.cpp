// SPDX-License-Identifier: Apache-2.0
#include "stores/identity/oidc.h"

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <list>
#include <optional>
#include <unordered_map>
#include <utility>

#include "async/event.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "crypto/jwt.h"
#include "crypto/keys.h"
#include "net/http_client.h"

namespace flock::identity {
namespace {

constexpr std::size_t kDocumentLimit = 256 * 1024;

bool is_loopback(const std::string& host) {
  if (host == "localhost" || host == "::1") return true;
  return host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string::npos;
}

void check_url(const std::string& text, const char* what) {
  const net::Url url = net::parse_url(text);
  if (url.scheme != "https" && !(url.scheme == "http" && is_loopback(url.host)))
    throw Error(Code::kInvalidArgument, std::string(what) + " must be an https URL")
        .with("url", text);
  if (!url.user.empty() || !url.password.empty())
    throw Error(Code::kInvalidArgument, std::string(what) + " must not hold a user");
}

std::string text_of(const boost::json::object& object, std::string_view name) {
  const auto* value = object.if_contains(name);
  return value && value->is_string() ? std::string(value->get_string()) : "";
}

// Tokens that were found good, by hash, the least recently used goes first.
class TokenCache {
 public:
  explicit TokenCache(std::size_t limit) : limit_(limit) {}

  const Identity* find(const std::string& hash, TimePoint now) {
    const auto found = by_hash_.find(hash);
    if (found == by_hash_.end()) return nullptr;
    if (now >= found->second->second.expires) {
      order_.erase(found->second);
      by_hash_.erase(found);
      return nullptr;
    }
    order_.splice(order_.begin(), order_, found->second);
    return &found->second->second;
  }

  void put(const std::string& hash, Identity identity) {
    if (limit_ == 0 || by_hash_.contains(hash)) return;
    if (by_hash_.size() >= limit_) {
      by_hash_.erase(order_.back().first);
      order_.pop_back();
    }
    order_.emplace_front(hash, std::move(identity));
    by_hash_[hash] = order_.begin();
  }

  // A key that the provider took back must not live on in here.
  void clear() {
    by_hash_.clear();
    order_.clear();
  }
  std::size_t size() const { return by_hash_.size(); }

 private:
  using Order = std::list<std::pair<std::string, Identity>>;
  std::size_t limit_;
  Order order_;
  std::unordered_map<std::string, Order::iterator> by_hash_;
};

}  // namespace

void check_issuer(const std::string& issuer) {
  check_url(issuer, "the issuer");
  if (issuer.find_first_of("?#") != std::string::npos)
    throw Error(Code::kInvalidArgument, "the issuer must not hold a query or fragment")
        .with("url", issuer);
}

struct OidcVerifier::Impl {
  Impl(Executor e, OidcOptions o)
      : executor(e),
        options(std::move(o)),
        http(e, {.tls = options.tls,
                 .connect_time = options.request_time,
                 .request_time = options.request_time,
                 .body_bytes = kDocumentLimit,
                 .idle_connections = 1}),
        cache(options.cached_tokens) {
    check_issuer(options.issuer);
    std::erase(options.audiences, "");
    // Without one, a token for any other program of the same provider would open Flock.
    if (options.audiences.empty()) throw Error(Code::kInvalidArgument, "an audience is required");
  }

  Task<boost::json::object> document(const std::string& url) {
    const net::Response response = co_await http.get(url, accept());
    if (response.status != 200)
      throw Error(Code::kUnavailable, "the identity provider did not answer with its document")
          .with("url", url)
          .with("status", std::to_string(response.status));
    boost::json::value value = json::parse(response.body, {.bytes = kDocumentLimit, .depth = 16});
    if (!value.is_object())
      throw Error(Code::kProtocol, "the identity provider's document is no object")
          .with("url", url);
    co_return std::move(value.get_object());
  }

  static net::Headers accept() {
    net::Headers headers;
    headers.set("Accept", "application/json");
    return headers;
  }

  // OpenID Connect Discovery 1.0, 4.
  Task<crypto::JwkSet> fetch() {
    const std::string base = options.issuer.ends_with('/')
                                 ? options.issuer.substr(0, options.issuer.size() - 1)
                                 : options.issuer;
    const auto discovery = co_await document(base + "/.well-known/openid-configuration");
    if (text_of(discovery, "issuer") != options.issuer)
      throw Error(Code::kProtocol, "the identity provider names another issuer")
          .with("wanted", options.issuer)
          .with("named", text_of(discovery, "issuer").substr(0, 200));
    const std::string jwks_uri = text_of(discovery, "jwks_uri");
    check_url(jwks_uri, "the identity provider's jwks_uri");
    const auto found = co_await document(jwks_uri);
    crypto::JwkSet set = crypto::JwkSet::parse(json::serialize(found));
    if (set.size() == 0)
      throw Error(Code::kProtocol, "the identity provider has no key that Flock can use");
    co_return set;
  }

  // Ends with new keys, or with the reason in `failure`. Runs in the scope, not in a caller, so
  // that a caller that goes away takes the fetch from nobody.
  Task<void> refresh() {
    try {
      crypto::JwkSet fresh = co_await fetch();
      if (keys && keys->to_json() != fresh.to_json()) cache.clear();
      keys = std::move(fresh);
      fetched_at = std::chrono::steady_clock::now();
      failure.reset();
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) {
        failure.emplace(Code::kUnavailable, "the identity provider was not asked to the end");
      } else {
        log::warn("the identity provider's keys could not be fetched", error,
                  {{"issuer", options.issuer}});
        failure.emplace(Code::kUnavailable, "the identity provider is not reachable");
      }
      ++counters.failed_fetches;
    }
    fetching->set();
    fetching.reset();
  }

  // True when a fetch runs or was started; false when the last one is too young.
  bool start_fetch() {
    if (fetching) return true;
    const auto now = std::chrono::steady_clock::now();
    if (tried_at && now - *tried_at < options.retry_every) return false;
    tried_at = now;
    ++counters.fetches;
    fetching = std::make_shared<Event>(executor);
    scope.spawn("oidc keys", refresh());
    return true;
  }

  static Task<void> wait(std::shared_ptr<Event> event) { co_await event->wait(); }

  Task<void> ensure_key(std::string kid) {
    // Old keys are good enough to go on with; the fetch runs beside.
    if (keys && std::chrono::steady_clock::now() - fetched_at >= options.refresh_every)
      start_fetch();
    if (keys && keys->find(kid) != nullptr) co_return;
    if (start_fetch()) co_await wait(fetching);
    if (keys && keys->find(kid) != nullptr) co_return;
    if (failure) throw *failure;
    if (!keys) throw Error(Code::kUnavailable, "the identity provider is not reachable");
    // Known and reachable, and it does not have this key: verify_jwt says "unknown key".
  }

  Identity read(const boost::json::object& claims) const {
    Identity identity;
    identity.issuer = options.issuer;
    identity.subject = text_of(claims, "sub");
    if (identity.subject.empty() || identity.subject.size() > 255)
      throw Error(Code::kUnauthenticated, "token refused: no subject");
    // Cut nothing: what does not fit is not taken.
    const auto short_text = [&](const char* name) {
      std::string text = text_of(claims, name);
      return text.size() <= 320 ? text : std::string();
    };
    identity.email = short_text("email");
    identity.name = short_text("name");
    const auto* verified = claims.if_contains("email_verified");
    identity.email_verified =
        !identity.email.empty() && verified && verified->is_bool() && verified->get_bool();
    const auto& expires = claims.at("exp");  // a number in range: verify_jwt saw to it
    identity.expires = from_unix_ms(static_cast<std::int64_t>(expires.to_number<double>() * 1000));
    return identity;
  }

  bool for_us(const boost::json::object& claims) const {
    const auto* aud = claims.if_contains("aud");
    const auto ours = [&](const boost::json::value& value) {
      return value.is_string() &&
             std::ranges::find(options.audiences, std::string_view(value.get_string())) !=
                 options.audiences.end();
    };
    if (aud == nullptr) return false;
    return aud->is_array() ? std::ranges::any_of(aud->get_array(), ours) : ours(*aud);
  }

  Executor executor;
  OidcOptions options;
  net::HttpClient http;
  TokenCache cache;
  std::optional<crypto::JwkSet> keys;
  std::chrono::steady_clock::time_point fetched_at{};
  std::optional<std::chrono::steady_clock::time_point> tried_at;
  std::optional<Error> failure;     // of the last fetch
  std::shared_ptr<Event> fetching;  // while one runs
  Counters counters;
  TaskScope scope{executor};
};

OidcVerifier::OidcVerifier(Executor executor, OidcOptions options)
    : impl_(std::make_shared<Impl>(executor, std::move(options))) {}
OidcVerifier::~OidcVerifier() = default;

Task<Identity> OidcVerifier::verify(std::string token, TimePoint now) {
  Impl& impl = *impl_;
  const std::string hash = crypto::sha256(token);
  if (const Identity* known = impl.cache.find(hash, now)) {
    ++impl.counters.cache_hits;
    // A cached token also notices in time that the provider took a key back.
    if (std::chrono::steady_clock::now() - impl.fetched_at >= impl.options.refresh_every)
      impl.start_fetch();
    co_return *known;
  }
  // Another provider's token is no reason to ask ours for its keys.
  if (text_of(crypto::peek_claims(token), "iss") != impl.options.issuer)
    throw Error(Code::kUnauthenticated, "token refused: wrong issuer");
  co_await impl.ensure_key(crypto::peek_kid(token));
  crypto::Expected expected;
  expected.issuer = impl.options.issuer;
  const boost::json::object claims = crypto::verify_jwt(token, *impl.keys, expected, now);
  if (!impl.for_us(claims)) throw Error(Code::kUnauthenticated, "token refused: wrong audience");
  Identity identity = impl.read(claims);
  impl.cache.put(hash, identity);
  co_return identity;
}

Task<void> OidcVerifier::stop() { co_await impl_->scope.finish(); }

OidcVerifier::Counters OidcVerifier::counters() const {
  Counters out = impl_->counters;
  out.cached = impl_->cache.size();
  return out;
}

}  // namespace flock::identity

// SPDX-License-Identifier: Apache-2.0
#include "services/credentials.h"

#include <algorithm>
#include <boost/json.hpp>

#include "base/bytes.h"
#include "base/error.h"
#include "base/random.h"
#include "crypto/jwt.h"

namespace flock::services {
namespace {

namespace bj = boost::json;

constexpr Duration kAssertionLife{300'000};
constexpr Duration kRegistryTokenLife{300'000};

std::int64_t seconds(TimePoint time) { return to_unix_ms(time) / 1000; }

bj::array device_acl(const std::string& device) {
  bj::array rules;
  const auto allow = [&](const char* action, const char* leaf) {
    rules.push_back(bj::object{
        {"permission", "allow"}, {"action", action}, {"topic", "devices/" + device + "/" + leaf}});
  };
  for (const char* leaf : {"state", "telemetry", "logs", "events"}) allow("publish", leaf);
  for (const char* leaf : {"desired", "commands"}) allow("subscribe", leaf);
  rules.push_back(bj::object{{"permission", "deny"}, {"action", "all"}, {"topic", "#"}});
  return rules;
}

}  // namespace

FreshKey make_key(std::string_view kind) {
  FreshKey key;
  key.secret = std::string(kind) + to_base64url(random_bytes(32));
  key.prefix = key.secret.substr(0, kind.size() + 6);
  key.hash = hash_key(key.secret);
  return key;
}

// 256 random bits need no salt and no slow hash.
std::string hash_key(std::string_view secret) { return crypto::sha256(secret); }

DeviceTokens::Token DeviceTokens::issue(const DeviceIdentity& identity, TimePoint now,
                                        std::optional<Duration> asked) const {
  const TimePoint expires = now + (asked ? std::min(*asked, longest_) : lifetime_);
  const bj::object claims{{"iss", issuer_},
                          {"sub", identity.device.text()},
                          {"aud", "flock-device"},
                          {"org", identity.org.text()},
                          {"fleet", identity.fleet.text()},
                          {"iat", seconds(now)},
                          {"nbf", seconds(now)},
                          {"exp", seconds(expires)},
                          {"jti", new_uuid()},
                          {"acl", device_acl(identity.device.text())}};
  return {crypto::sign_jwt(key_, claims), expires};
}

DeviceIdentity DeviceTokens::verify(std::string_view token, TimePoint now) const {
  crypto::Expected expected;
  expected.issuer = issuer_;
  expected.audience = "flock-device";
  const bj::object claims = crypto::verify_jwt(token, key_, expected, now);
  const auto text = [&](const char* name) {
    const bj::value* value = claims.if_contains(name);
    return value && value->is_string() ? std::string(value->get_string()) : std::string();
  };
  return {DeviceId::parse(text("sub")), OrgId::parse(text("org")), FleetId::parse(text("fleet"))};
}

void DeviceTokens::check_assertion(std::string_view assertion, const crypto::Key& device_key,
                                   const std::string& subject, TimePoint now) {
  crypto::Expected expected;
  expected.audience = "flock-api";
  expected.issuer = subject;
  expected.max_age = kAssertionLife;
  const bj::object claims = crypto::verify_jwt(assertion, device_key, expected, now);
  const bj::value* sub = claims.if_contains("sub");
  if (sub == nullptr || !sub->is_string() || sub->get_string() != subject)
    throw Error(Code::kUnauthenticated, "token refused: wrong subject");
}

std::string DeviceTokens::registry_token(const std::string& service, const std::string& subject,
                                         const std::vector<Grant>& grants, TimePoint now) const {
  bj::array access;
  for (const Grant& grant : grants) {
    bj::array actions;
    for (const std::string& action : grant.actions) actions.push_back(bj::value(action));
    access.push_back(bj::object{
        {"type", "repository"}, {"name", grant.repository}, {"actions", std::move(actions)}});
  }
  // The registry allows for no clock skew of its own.
  const bj::object claims{{"iss", "flock"},           {"sub", subject},
                          {"aud", service},           {"iat", seconds(now)},
                          {"nbf", seconds(now) - 10}, {"exp", seconds(now + kRegistryTokenLife)},
                          {"jti", new_uuid()},        {"access", std::move(access)}};
  return crypto::sign_jwt(key_, claims, key_.libtrust_id());
}

}  // namespace flock::services

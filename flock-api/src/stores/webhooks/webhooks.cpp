// SPDX-License-Identifier: Apache-2.0
#include "stores/webhooks/webhooks.h"

#include "base/bytes.h"
#include "base/error.h"
#include "crypto/keys.h"
#include "domain/networks.h"

namespace flock::stores {
namespace {

constexpr std::string_view kPrefix = "whsec_";
constexpr std::size_t kShortestKey = 24, kLongestKey = 64;  // bytes

bool is_loopback(const domain::Address& address) {
  return domain::contained({"127.0.0.0/8", "::1"}, address);
}
bool is_loopback_name(const std::string& host) {
  const auto address = domain::parse_address(host);
  return host == "localhost" || (address && is_loopback(*address));
}

}  // namespace

std::string webhook_fault(const WebhookRules& rules, const std::string& text) {
  try {
    const net::Url url = net::parse_url(text);
    if (!url.user.empty() || !url.password.empty()) return "must not hold a user or password";
    if (text.find('#') != std::string::npos) return "must not have a fragment";
    const bool plain = url.scheme == "http" && is_loopback_name(url.host) && rules.allow_loopback;
    if (url.scheme != "https" && !plain) return "must begin with https://";
    if (domain::parse_address(url.host) && !may_reach(rules, url.host))
      return "names an address that may not be called (webhooks.allowed_networks)";
    return "";
  } catch (const Error& error) {
    return error.message() + "; " + error.hint();
  }
}

bool may_reach(const WebhookRules& rules, const std::string& text) {
  const auto address = domain::parse_address(text);
  if (!address) return false;
  if (rules.allow_loopback && is_loopback(*address)) return true;
  return domain::is_public(*address) || domain::contained(rules.allowed_networks, *address);
}

std::optional<Secret> webhook_key(std::string_view secret) {
  if (!secret.starts_with(kPrefix)) return std::nullopt;
  auto key = from_base64(secret.substr(kPrefix.size()));
  if (!key || key->size() < kShortestKey || key->size() > kLongestKey) return std::nullopt;
  return Secret(std::move(*key));
}

net::Headers signature(const Secret& key, const std::string& id, std::int64_t at_seconds,
                       std::string_view body) {
  const std::string at = std::to_string(at_seconds);
  const std::string signed_text = id + "." + at + "." + std::string(body);
  net::Headers out;
  out.add("webhook-id", id);
  out.add("webhook-timestamp", at);
  out.add("webhook-signature", "v1," + to_base64(crypto::hmac_sha256(key.reveal(), signed_text)));
  return out;
}

}  // namespace flock::stores

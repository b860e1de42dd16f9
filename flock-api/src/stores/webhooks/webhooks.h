// SPDX-License-Identifier: Apache-2.0
// What we send to services of customers: where it may go, and what it is signed with (Standard
// Webhooks, https://www.standardwebhooks.com).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/secret.h"
#include "net/http.h"

namespace flock::stores {

// Whoever may name a URL could make the backend call what only it can reach: nothing but public
// addresses are called, and what the operator of the backend allows besides.
struct WebhookRules {
  bool allow_loopback = false;  // for development; http:// there as well
  std::vector<std::string> allowed_networks;
};
// What is wrong with a URL, or "". Where its name leads is seen when it is called.
std::string webhook_fault(const WebhookRules& rules, const std::string& url);
// Whether a name may lead to this address.
bool may_reach(const WebhookRules& rules, const std::string& address);

// "whsec_" and the base64 of 24 to 64 bytes; nothing for what is none.
std::optional<Secret> webhook_key(std::string_view secret);
// webhook-id, webhook-timestamp and webhook-signature.
net::Headers signature(const Secret& key, const std::string& id, std::int64_t at_seconds,
                       std::string_view body);

}  // namespace flock::stores

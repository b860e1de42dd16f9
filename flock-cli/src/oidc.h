// SPDX-License-Identifier: Apache-2.0
// Signing in at the organization's identity provider: the device flow (RFC 8628), refreshing
// (RFC 6749, 6) and revoking (RFC 7009).
#pragma once

#include <optional>
#include <string>

#include "client.h"

namespace flock::cli {

// What GET /v1/auth/config says.
struct AuthConfig {
  std::string issuer, client_id, audience, scopes;
};
// Nothing when the server has no identity provider.
std::optional<AuthConfig> auth_config(const Settings& settings);

// Decides after each answer of the token endpoint.
class DevicePoll {
 public:
  explicit DevicePoll(Duration interval) : interval_(interval) {}
  Duration interval() const { return interval_; }
  // True when the tokens are there, false to ask again after interval(). Throws
  // Error{kForbidden, kTimeout, kUnprocessable} when asking again is of no use.
  bool done(const net::Response& response);
  // The provider did not answer: ask less often (RFC 8628, 3.5).
  void lost() { interval_ *= 2; }

 private:
  Duration interval_;
};

// Prints code and URL on standard error and waits until the user has agreed in a browser.
Credential device_login(const Settings& settings, const AuthConfig& config);

// Less than a minute left.
bool expires_soon(const Credential& credential);
// Refreshes the credential of the context and stores it; one process does so at a time. A provider
// that refuses is Error{kUnauthenticated} with the command to run.
Credential refresh_stored(const Settings& settings);
// Best effort: false when the provider has no such endpoint or refused.
bool revoke(const Settings& settings, const Credential& credential);

}  // namespace flock::cli

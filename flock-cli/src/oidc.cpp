// SPDX-License-Identifier: Apache-2.0
#include "oidc.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <utility>
#include <vector>

#include "async/loop.h"
#include "base/bytes.h"
#include "base/json.h"
#include "output.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

using Form = std::vector<std::pair<std::string, std::string>>;

net::Response post_form(const Settings& settings, const std::string& url, const Form& form) {
  std::string body;
  for (const auto& [name, value] : form) {
    if (!value.empty()) body += (body.empty() ? "" : "&") + name + "=" + url_encode(value);
  }
  net::Headers headers;
  headers.add("Accept", "application/json");
  headers.add("Content-Type", "application/x-www-form-urlencoded");
  return exchange(settings, "POST", url, headers, body);
}

// Tokens travel over TLS, or not beyond this machine.
const std::string& safe_url(const std::string& url) {
  const net::Url parsed = net::parse_url(url);
  const bool loopback =
      parsed.host == "127.0.0.1" || parsed.host == "::1" || parsed.host == "localhost";
  if (parsed.scheme == "https" || (parsed.scheme == "http" && loopback)) return url;
  throw Error(Code::kProtocol, "the identity provider's address is not https").with("url", url);
}

bj::value parse_answer(const net::Response& response, const char* what) {
  bj::value body;
  try {
    body = json::parse(response.body);
  } catch (const Error&) {
  }
  if (body.is_object()) return body;
  throw Error(Code::kProtocol, std::string("the identity provider's ") + what + " is not JSON")
      .with("status", std::to_string(response.status));
}

Error refusal(const char* what, const bj::value& answer) {
  std::string why = value_at(answer, "error_description");
  if (why.empty()) why = value_at(answer, "error");
  return Error(Code::kUnprocessable, std::string("the identity provider refused ") + what)
      .with("answer", why);
}

std::int64_t seconds_at(const bj::value& answer, std::string_view key, std::int64_t fallback) {
  const bj::value* value = answer.as_object().if_contains(key);
  if (value == nullptr || !value->is_number()) return fallback;
  boost::system::error_code error;
  const auto seconds = value->to_number<std::int64_t>(error);
  return error ? fallback : std::clamp<std::int64_t>(seconds, 0, 86'400);
}

void take_tokens(Credential& credential, const bj::value& answer) {
  credential.oidc = true;
  credential.access_token = Secret(value_at(answer, "access_token"));
  if (credential.access_token.empty())
    throw Error(Code::kProtocol, "the identity provider's answer has no access token");
  // Rotation: a provider that sends none keeps the one it gave.
  if (std::string fresh = value_at(answer, "refresh_token"); !fresh.empty())
    credential.refresh_token = Secret(std::move(fresh));
  credential.expires_at =
      to_rfc3339(system_clock().now() + Duration(1000 * seconds_at(answer, "expires_in", 300)));
}

struct Endpoints {
  std::string device, token, revocation;
};
Endpoints discover(const Settings& settings, const std::string& issuer) {
  std::string base = issuer;
  while (base.ends_with('/')) base.pop_back();
  const net::Response response =
      exchange(settings, "GET", safe_url(base) + "/.well-known/openid-configuration", {}, "");
  if (response.status != 200)
    throw Error(Code::kUnavailable, "the identity provider does not describe itself")
        .with("issuer", issuer)
        .with("status", std::to_string(response.status));
  const bj::value document = parse_answer(response, "description");
  // OpenID Connect Discovery 4.3: another issuer could have been put in between.
  if (value_at(document, "issuer") != issuer)
    throw Error(Code::kProtocol, "the identity provider calls itself differently")
        .with("expected", issuer)
        .with("found", value_at(document, "issuer"));
  Endpoints out{value_at(document, "device_authorization_endpoint"),
                value_at(document, "token_endpoint"), value_at(document, "revocation_endpoint")};
  if (out.device.empty() || out.token.empty())
    throw Error(Code::kUnsupported, "the identity provider has no device sign-in")
        .with("issuer", issuer)
        .hint("make an API key in the dashboard, then: flock login --with-token");
  safe_url(out.device);
  safe_url(out.token);
  if (!out.revocation.empty()) safe_url(out.revocation);
  return out;
}

}  // namespace

std::optional<AuthConfig> auth_config(const Settings& settings) {
  if (settings.server.value.empty())
    throw Error(Code::kInvalidArgument, "missing: --server")
        .hint("flock login --server https://flock.example");
  net::Headers headers;
  headers.add("Accept", "application/json");
  const net::Response response =
      exchange(settings, "GET", settings.server.value + "/v1/auth/config", headers, "");
  if (response.status == 404) return std::nullopt;  // a server without sign-in
  if (response.status >= 400) throw problem_of(response);
  const bj::value answer = json::parse(response.body);
  AuthConfig out{value_at(answer, "oidc.issuer"), value_at(answer, "oidc.client_id"),
                 value_at(answer, "oidc.audience"), value_at(answer, "oidc.scopes")};
  // RFC 6749, section 3.3: one text with spaces. A server says it so, or as a list.
  boost::system::error_code absent;
  const bj::value* scopes = answer.find_pointer("/oidc/scopes", absent);
  if (scopes != nullptr && scopes->is_array()) {
    out.scopes.clear();
    for (const bj::value& scope : scopes->get_array())
      out.scopes += (out.scopes.empty() ? "" : " ") + value_at(scope, "");
  }
  if (out.issuer.empty()) return std::nullopt;
  return out;
}

bool DevicePoll::done(const net::Response& response) {
  if (response.status == 200) return true;
  if (response.status >= 500) {
    lost();
    return false;
  }
  const bj::value answer = parse_answer(response, "answer");
  const std::string error = value_at(answer, "error");
  if (error == "authorization_pending") return false;
  if (error == "slow_down") {
    interval_ += Duration(5000);
    return false;
  }
  if (error == "access_denied")
    throw Error(Code::kForbidden, "the sign-in was refused in the browser").hint("flock login");
  if (error == "expired_token")
    throw Error(Code::kTimeout, "the code expired before it was used").hint("flock login");
  throw refusal("the sign-in", answer);
}

Credential device_login(const Settings& settings, const AuthConfig& config) {
  const Endpoints endpoints = discover(settings, config.issuer);
  const net::Response response = post_form(
      settings, endpoints.device,
      {{"client_id", config.client_id}, {"scope", config.scopes}, {"resource", config.audience}});
  const bj::value begun = parse_answer(response, "answer");
  if (response.status != 200) throw refusal("to begin the sign-in", begun);
  const std::string complete = value_at(begun, "verification_uri_complete");
  std::fprintf(stderr, "Open %s\nand enter the code  %s\n",
               printable(value_at(begun, "verification_uri")).c_str(),
               printable(value_at(begun, "user_code")).c_str());
  if (!complete.empty()) std::fprintf(stderr, "or open %s\n", printable(complete).c_str());
  std::fputs("Waiting; Ctrl-C gives up.\n", stderr);

  DevicePoll poll(Duration(1000 * seconds_at(begun, "interval", 5)));
  const SteadyPoint end =
      std::chrono::steady_clock::now() +
      std::chrono::seconds(std::max<std::int64_t>(1, seconds_at(begun, "expires_in", 300)));
  while (std::chrono::steady_clock::now() < end) {
    Loop loop;
    loop.run(sleep_for(poll.interval()));
    net::Response answer;
    try {
      answer = post_form(settings, endpoints.token,
                         {{"grant_type", "urn:ietf:params:oauth:grant-type:device_code"},
                          {"device_code", value_at(begun, "device_code")},
                          {"client_id", config.client_id},
                          {"resource", config.audience}});
    } catch (const Error& error) {
      if (error.code() != Code::kUnavailable && error.code() != Code::kTimeout) throw;
      poll.lost();
      continue;
    }
    if (!poll.done(answer)) continue;
    Credential credential;
    credential.token_endpoint = endpoints.token;
    credential.revocation_endpoint = endpoints.revocation;
    credential.client_id = config.client_id;
    credential.resource = config.audience;
    take_tokens(credential, parse_answer(answer, "answer"));
    return credential;
  }
  throw Error(Code::kTimeout, "the code expired before it was used").hint("flock login");
}

bool expires_soon(const Credential& credential) {
  return credential.oidc && !credential.expires_at.empty() &&
         parse_rfc3339(credential.expires_at) < system_clock().now() + Duration(60'000);
}

Credential refresh_stored(const Settings& settings) {
  Credential out;
  const std::string again = "flock login --server " + settings.server.value;
  change_credentials([&](Credentials& all) {
    Credential& own = all[settings.context.value];
    if (!own.oidc || !expires_soon(own)) {  // another process was quicker
      out = own;
      return;
    }
    if (own.refresh_token.empty())
      throw Error(Code::kUnauthenticated, "your sign-in has expired").hint(again);
    const net::Response response = post_form(settings, safe_url(own.token_endpoint),
                                             {{"grant_type", "refresh_token"},
                                              {"refresh_token", own.refresh_token.reveal()},
                                              {"client_id", own.client_id},
                                              {"resource", own.resource}});
    if (response.status >= 500)
      throw Error(Code::kUnavailable, "the identity provider cannot refresh your sign-in now")
          .with("status", std::to_string(response.status))
          .hint("try again in a moment");
    if (response.status != 200)
      throw Error(Code::kUnauthenticated, "your sign-in has ended and cannot be refreshed")
          .hint(again);
    take_tokens(own, parse_answer(response, "answer"));
    out = own;
  });
  return out;
}

bool revoke(const Settings& settings, const Credential& credential) {
  if (!credential.oidc || credential.revocation_endpoint.empty()) return false;
  const bool refresh = !credential.refresh_token.empty();
  try {
    const net::Response response = post_form(
        settings, safe_url(credential.revocation_endpoint),
        {{"token", refresh ? credential.refresh_token.reveal() : credential.access_token.reveal()},
         {"token_type_hint", refresh ? "refresh_token" : "access_token"},
         {"client_id", credential.client_id}});
    return response.status == 200;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace flock::cli

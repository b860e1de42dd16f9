// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>
#include <filesystem>

#include "async/loop.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/json.h"
#include "net/http_client.h"
#include "testing/servers.h"

namespace flock::testing {
namespace {

Task<void> post(std::string url, std::string form, std::string& answer) {
  net::HttpClient http(co_await asio::this_coro::executor, {});
  net::Headers headers;
  headers.set("Content-Type", "application/x-www-form-urlencoded");
  const net::Response response =
      co_await http.send("POST", std::move(url), std::move(headers), std::move(form));
  if (response.status != 200)
    throw Error(Code::kInternal, "the OpenID provider refused").with("answer", response.body);
  answer = response.body;
}

std::string post_now(const std::string& url, const std::string& form) {
  std::string answer;
  Loop loop;
  loop.run(post(url, form, answer));
  return answer;
}

std::string text_of(const std::string& document, std::string_view name) {
  return std::string(json::parse(document).as_object().at(name).as_string());
}

}  // namespace

void OidcProvider::start() {
  const std::string folder = FLOCK_OIDC_DIR;
  if (!std::filesystem::exists(folder + "/node_modules/oidc-provider"))
    throw Error(Code::kNotFound, "the packages of flock-local/oidc are missing")
        .hint("./dev setup");
  process_.start({"node", folder + "/server.mjs", "--port", std::to_string(port_), "--keys",
                  dir_.file("keys"), "--audience", audience()},
                 log());
  wait_until("the OpenID provider listens", [&] { return port_open(port_); }, 30);
}

std::string OidcProvider::sign_in(const std::string& user) const {
  const std::string started =
      post_now(issuer() + "/device/auth",
               "client_id=flock-cli&scope=" + url_encode("openid offline_access email profile"));
  run_program(
      {"node", FLOCK_OIDC_DIR "/approve.mjs", issuer(), text_of(started, "user_code"), user});
  return post_now(issuer() + "/token",
                  "client_id=flock-cli&grant_type=" +
                      url_encode("urn:ietf:params:oauth:grant-type:device_code") +
                      "&device_code=" + url_encode(text_of(started, "device_code")));
}

std::string OidcProvider::access_token(const std::string& user) const {
  return text_of(sign_in(user), "access_token");
}

void OidcProvider::forget_keys() { std::filesystem::remove_all(dir_.file("keys")); }

}  // namespace flock::testing

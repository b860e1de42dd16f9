// SPDX-License-Identifier: Apache-2.0
#include "stores/webhooks/gate_webhook.h"

#include <boost/json/serialize.hpp>

#include "base/error.h"
#include "base/id.h"
#include "base/json.h"
#include "net/http_client.h"

namespace flock::stores {
namespace {

namespace bj = boost::json;
using namespace domain;

constexpr std::size_t kAnswerBytes = 64 * 1024;

// Its redirects would lead where nobody looked.
std::string refusal(int status) {
  const std::string text = "it answered " + std::to_string(status);
  return status >= 300 && status < 400 ? text + "; redirects are not followed" : text;
}

Check read_answer(const std::string& body) {
  Check check{.sample = 1};
  const bj::value answer = json::parse(body, {.bytes = kAnswerBytes, .depth = 8});
  const bj::object* const object = answer.if_object();
  const bj::value* const result = object != nullptr ? object->if_contains("result") : nullptr;
  const bj::value* const reason = object != nullptr ? object->if_contains("reason") : nullptr;
  if (reason != nullptr && reason->is_string()) check.reason = reason->as_string();
  if (result != nullptr && *result == "pass") {
    check.verdict = GateResult::kPass;
  } else if (result != nullptr && *result == "fail") {
    check.verdict = GateResult::kFail;
  } else if (result == nullptr || *result != "inconclusive") {
    check.reason = R"(it answered no "result": "pass", "fail" or "inconclusive")";
  }
  return check;
}

}  // namespace

Task<Check> ask_webhook(WebhookRules rules, Gate gate, Secret key, bj::object data) {
  const TimePoint now = system_clock().now();
  std::string body = bj::serialize(bj::object{
      {"type", "rollout.gate_check"}, {"timestamp", to_rfc3339(now)}, {"data", std::move(data)}});
  net::Headers headers = signature(key, "gate_" + new_uuid(), to_unix_ms(now) / 1000, body);
  headers.add("Content-Type", "application/json");
  headers.add("Accept", "application/json");
  net::ClientOptions options;
  options.connect_time = options.request_time = gate.timeout;
  options.body_bytes = kAnswerBytes;
  options.idle_connections = 0;
  options.user_agent = "flock-api";
  options.allowed = [rules = std::move(rules)](const std::string& address) {
    return may_reach(rules, address);
  };
  net::HttpClient http(co_await asio::this_coro::executor, std::move(options));
  try {
    const net::Response answer =
        co_await http.send("POST", gate.url, std::move(headers), std::move(body));
    if (answer.status < 200 || answer.status >= 300)
      co_return Check{.sample = 1, .reason = refusal(answer.status)};
    co_return read_answer(answer.body);
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    co_return Check{.sample = 1, .reason = error.message()};
  }
}

}  // namespace flock::stores

// SPDX-License-Identifier: Apache-2.0
#include "client.h"

#include <boost/json.hpp>
#include <cstdio>

#include "async/loop.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "net/http_client.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

Code code_of(int status) {
  switch (status) {
    case 401:
      return Code::kUnauthenticated;
    case 403:
      return Code::kForbidden;
    case 404:
      return Code::kNotFound;
    case 409:
      return Code::kConflict;
    case 412:
      return Code::kPreconditionFailed;
    case 413:
      return Code::kTooLarge;
    case 422:
      return Code::kUnprocessable;
    case 502:
    case 503:
      return Code::kUnavailable;
    case 504:
      return Code::kTimeout;
    default:
      return status >= 500 ? Code::kInternal : Code::kUnprocessable;
  }
}

std::string text_of(const bj::object& object, std::string_view key) {
  const bj::value* value = object.if_contains(key);
  return value && value->is_string() ? std::string(value->get_string()) : "";
}

Error problem_of(const net::Response& response) {
  bj::value body;
  try {
    body = json::parse(response.body);
  } catch (const Error&) {
  }
  const bj::object* problem = body.if_object();
  if (problem == nullptr)
    return Error(code_of(response.status),
                 "the server answered with status " + std::to_string(response.status));
  std::vector<Problem> faults;
  if (const bj::value* errors = problem->if_contains("errors"); errors && errors->is_array()) {
    for (const bj::value& item : errors->get_array()) {
      if (item.is_object())
        faults.push_back({text_of(item.get_object(), "pointer"), text_of(item.get_object(), "code"),
                          text_of(item.get_object(), "detail")});
    }
  }
  std::string message = text_of(*problem, "detail");
  if (message.empty()) message = text_of(*problem, "title");
  if (message.empty())
    message = "the server answered with status " + std::to_string(response.status);
  Error error = Error(code_of(response.status), message)
                    .hint(text_of(*problem, "hint"))
                    .problems(std::move(faults));
  if (const bj::value* context = problem->if_contains("context"); context && context->is_object()) {
    for (const auto& item : context->get_object()) {
      if (item.value().is_string()) error.with(item.key(), std::string(item.value().get_string()));
    }
  }
  error.with("request", text_of(*problem, "request_id"));
  return error;
}

net::Headers headers_for(const Settings& settings) {
  net::Headers headers;
  headers.add("Accept", "application/json");
  if (!settings.token.empty()) headers.add("Authorization", "Bearer " + settings.token.reveal());
  return headers;
}

net::ClientOptions options_for(const Settings& settings) {
  net::ClientOptions options;
  options.user_agent = "flock-cli";
  options.request_time = Duration(90'000);
  if (!settings.ca_file.empty()) {
    net::TlsOptions tls;
    const auto pem = read_file(settings.ca_file);
    if (!pem)
      throw Error(Code::kInvalidArgument, "the file with the server's CA does not exist")
          .with("ca_file", settings.ca_file)
          .hint("set FLOCK_CA_FILE, or sign in again");
    tls.ca_pem = *pem;
    options.tls = net::make_tls_client(tls);
  }
  return options;
}

void require_server(const Settings& settings) {
  if (settings.server.empty()) {
    throw Error(Code::kUnauthenticated, "no server is configured")
        .hint(
            "flock login --server https://flock.example --with-token, or set FLOCK_SERVER and "
            "FLOCK_TOKEN");
  }
}

// Who could not be reached belongs to the message.
Error unreachable(const Error& error, const std::string& server) {
  return Error(error.code() == Code::kTimeout ? Code::kTimeout : Code::kUnavailable,
               "cannot reach the server: " + error.message())
      .with("server", server)
      .hint("is it running, and is the address right?");
}

}  // namespace

net::Response Client::raw(const std::string& method, const std::string& path,
                          const std::string& body) const {
  require_server(settings_);
  Loop loop;
  net::Response response;
  const auto work = [&]() -> Task<void> {
    net::HttpClient http(co_await asio::this_coro::executor, options_for(settings_));
    net::Headers headers = headers_for(settings_);
    if (!body.empty()) headers.add("Content-Type", "application/json");
    const SteadyPoint began = std::chrono::steady_clock::now();
    if (settings_.debug)
      std::fprintf(stderr, "> %s %s%s (%zu bytes)\n", method.c_str(), settings_.server.c_str(),
                   path.c_str(), body.size());
    response = co_await http.send(method, settings_.server + path, headers, body);
    if (settings_.debug)
      std::fprintf(stderr, "< %d after %lld ms (%zu bytes)\n", response.status,
                   static_cast<long long>(std::chrono::duration_cast<Duration>(
                                              std::chrono::steady_clock::now() - began)
                                              .count()),
                   response.body.size());
  };
  try {
    loop.run(work());
  } catch (const Error& error) {
    if (error.code() != Code::kUnavailable && error.code() != Code::kTimeout &&
        error.code() != Code::kProtocol)
      throw;
    throw unreachable(error, settings_.server);
  }
  return response;
}

bj::value Client::send(const std::string& method, const std::string& path,
                       const std::string& body) const {
  const net::Response response = raw(method, path, body);
  if (response.status >= 400) throw problem_of(response);
  if (response.body.empty()) return nullptr;
  return json::parse(response.body, {.bytes = 64 << 20, .depth = 64});
}

bj::value Client::get(const std::string& path) const { return send("GET", path, ""); }
bj::value Client::list(const std::string& path) const {
  const std::string first =
      path + (path.find('?') == std::string::npos ? "?" : "&") + "page_size=1000";
  bj::value answer = get(first);
  for (;;) {
    const std::string token = text_of(answer.as_object(), "next_page_token");
    if (token.empty()) return answer;
    bj::value next = get(first + "&page_token=" + url_encode(token));
    bj::array& items = answer.as_object()["items"].as_array();
    for (bj::value& item : next.as_object()["items"].as_array()) items.push_back(std::move(item));
    answer.as_object()["next_page_token"] = text_of(next.as_object(), "next_page_token");
  }
}
bj::value Client::post(const std::string& path, const bj::value& body) const {
  return send("POST", path, bj::serialize(body));
}

void Client::events(const std::string& path,
                    const std::function<bool(const net::SseEvent&)>& on_event) const {
  require_server(settings_);
  for (int failures = 0; failures < 60; ++failures) {
    Loop loop;
    bool wanted = true;
    net::Response response;
    const auto work = [&]() -> Task<void> {
      net::HttpClient http(co_await asio::this_coro::executor, options_for(settings_));
      net::SseParser parser;
      std::string refused;
      const auto feed = [&](std::string_view chunk) -> Task<void> {
        refused += refused.size() < 16 * 1024 ? chunk : "";
        for (const net::SseEvent& event : parser.feed(chunk)) {
          failures = 0;
          wanted = wanted && on_event(event);
        }
        // The server ends the stream itself after its last event; an early goodbye is a thrown one.
        if (!wanted) throw Error(Code::kCancelled, "done");
        co_return;
      };
      response =
          co_await http.stream("GET", settings_.server + path, headers_for(settings_), "", feed);
      response.body = refused;
    };
    try {
      loop.run(work());
    } catch (const Error& error) {
      if (!wanted) return;
      if (error.code() != Code::kUnavailable && error.code() != Code::kTimeout &&
          error.code() != Code::kProtocol)
        throw;
      if (failures == 59) throw unreachable(error, settings_.server);
    }
    if (response.status >= 400 && response.status != 503) throw problem_of(response);
    if (!wanted) return;
    Loop pause;
    pause.run(sleep_for(Duration(500)));
  }
}

}  // namespace flock::cli

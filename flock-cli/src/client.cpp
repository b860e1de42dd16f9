// SPDX-License-Identifier: Apache-2.0
#include "client.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>

#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "net/http_client.h"
#include "oidc.h"
#include "output.h"

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

net::ClientOptions options_for(const Settings& settings) {
  net::ClientOptions options;
  options.user_agent = "flock-cli";
  options.request_time = settings.request_time;
  options.connect_time = std::min(options.connect_time, settings.request_time);
  options.body_bytes = 64 << 20;
  if (!settings.ca_file.value.empty()) {
    net::TlsOptions tls;
    const auto pem = read_file(settings.ca_file.value);
    if (!pem)
      throw Error(Code::kInvalidArgument, "the file with the server's CA does not exist")
          .with("ca_file", settings.ca_file.value)
          .hint("set FLOCK_CA_FILE, or sign in again");
    tls.ca_pem = *pem;
    options.tls = net::make_tls_client(tls);
  }
  return options;
}

void require_server(const Settings& settings) {
  if (settings.server.value.empty())
    throw Error(Code::kUnauthenticated, "no server is configured")
        .hint("flock login --server https://flock.example, or set FLOCK_SERVER and FLOCK_TOKEN");
}

// Who could not be reached belongs to the message.
Error unreachable(const Error& error, const std::string& server) {
  return Error(error.code() == Code::kTimeout ? Code::kTimeout : Code::kUnavailable,
               "cannot reach the server: " + error.message())
      .with("server", server)
      .hint("is it running, and is the address right?");
}

}  // namespace

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
  if (const std::string type = text_of(*problem, "type"); type.starts_with("https://"))
    error.with("docs", type);
  error.with("request", text_of(*problem, "request_id"));
  return error;
}

net::Response exchange(const Settings& settings, const std::string& method, const std::string& url,
                       const net::Headers& headers, const std::string& body) {
  Loop loop;
  net::Response response;
  const auto work = [&]() -> Task<void> {
    net::HttpClient http(co_await asio::this_coro::executor, options_for(settings));
    const SteadyPoint began = std::chrono::steady_clock::now();
    if (settings.debug)
      std::fprintf(stderr, "> %s %s (%zu bytes)\n", method.c_str(), printable(url).c_str(),
                   body.size());
    response = co_await http.send(method, url, headers, body);
    if (settings.debug)
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
    const net::Url place = net::parse_url(url);
    throw unreachable(error, place.scheme + "://" + place.host + ":" + place.port);
  }
  return response;
}

net::Headers Client::headers() const {
  net::Headers headers;
  headers.add("Accept", "application/json");
  if (!token().empty()) headers.add("Authorization", "Bearer " + token().reveal());
  if (!settings_.organization.value.empty())
    headers.add("Flock-Organization", settings_.organization.value);
  return headers;
}

const Secret& Client::token() const {
  if (settings_.stored && expires_soon(settings_.credential))
    settings_.credential = refresh_stored(settings_);
  return settings_.credential.access_token;
}

net::Response Client::raw(const std::string& method, const std::string& path,
                          const std::string& body) const {
  require_server(settings_);
  net::Headers all = headers();
  if (!body.empty()) all.add("Content-Type", "application/json");
  return exchange(settings_, method, settings_.server.value + path, all, body);
}

bj::value Client::send(const std::string& method, const std::string& path,
                       const std::string& body) const {
  const net::Response response = raw(method, path, body);
  if (response.status >= 400) throw problem_of(response);
  if (response.body.empty()) return nullptr;
  return json::parse(response.body, {.bytes = 64 << 20, .depth = 64});
}

bj::value Client::get(const std::string& path) const { return send("GET", path, ""); }

bj::value Client::list(const std::string& path, std::int64_t limit) const {
  const std::int64_t page = limit == 0 ? 1000 : std::min<std::int64_t>(limit, 1000);
  const std::string first = path + (path.find('?') == std::string::npos ? "?" : "&") +
                            "page_size=" + std::to_string(page);
  bj::value answer = get(first);
  if (!answer.is_object() || !answer.get_object()["items"].is_array())
    throw Error(Code::kProtocol, "the server's answer is not a list").with("path", path);
  bj::object& list = answer.get_object();
  bj::array& items = list["items"].get_array();
  for (;;) {
    const std::string token = text_of(list, "next_page_token");
    if (token.empty()) return answer;
    if (limit != 0 && items.size() >= static_cast<std::size_t>(limit)) {
      std::fprintf(stderr, "There are more than these %zu; --limit 0 takes all.\n", items.size());
      return answer;
    }
    bj::value next = get(first + "&page_token=" + url_encode(token));
    for (bj::value& item : next.as_object()["items"].as_array()) items.push_back(std::move(item));
    list["next_page_token"] = text_of(next.as_object(), "next_page_token");
  }
}

bj::value Client::post(const std::string& path, const bj::value& body) const {
  return send("POST", path, bj::serialize(body));
}

void Client::download(const std::string& path,
                      const std::function<void(std::string_view)>& on_chunk) const {
  require_server(settings_);
  Loop loop;
  net::Response response;
  const auto work = [&]() -> Task<void> {
    net::HttpClient http(co_await asio::this_coro::executor, options_for(settings_));
    std::string refused;
    int status = 0;
    const auto feed = [&](std::string_view chunk) -> Task<void> {
      if (status < 400)
        on_chunk(chunk);
      else if (refused.size() < 16 * 1024)
        refused += chunk;
      co_return;
    };
    response = co_await http.stream("GET", settings_.server.value + path, headers(), "", feed,
                                    [&](int code) { status = code; });
    response.body = refused;
  };
  try {
    loop.run(work());
  } catch (const Error& error) {
    if (error.code() != Code::kUnavailable && error.code() != Code::kTimeout) throw;
    throw unreachable(error, settings_.server.value);
  }
  if (response.status >= 400) throw problem_of(response);
}

namespace {

// One connection of a stream. A server says something at least every 15 seconds; a line that is
// silent for longer is dead without knowing it.
Task<net::Response> listen(net::HttpClient& http, std::string url, net::Headers headers,
                           net::HttpClient::OnData feed) {
  constexpr Duration kSilence{45'000};
  const Executor executor = co_await asio::this_coro::executor;
  net::Response response;
  std::exception_ptr failure;
  Event moved(executor);
  bool done = false;
  const auto hear = [&](std::string_view chunk) -> Task<void> {
    moved.set();
    co_await feed(chunk);
  };
  const auto run = [&]() -> Task<void> {
    try {
      response = co_await http.stream("GET", url, headers, "", hear);
    } catch (...) {
      failure = std::current_exception();
    }
    done = true;
    moved.set();
  };
  TaskScope scope(executor);
  scope.spawn("stream", run());
  bool silent = false;
  while (!done && !silent) {
    moved.reset();
    silent = !co_await moved.wait_for(kSilence);
  }
  scope.cancel();
  co_await scope.join();
  if (silent) throw Error(Code::kTimeout, "the server fell silent");
  if (failure) std::rethrow_exception(failure);
  co_return response;
}

}  // namespace

void Client::events(const std::string& path,
                    const std::function<bool(const net::SseEvent&)>& on_event) const {
  require_server(settings_);
  std::string last_id;
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
          if (!event.id.empty()) last_id = event.id;
          wanted = wanted && on_event(event);
        }
        // The server ends the stream itself after its last event; an early goodbye is a thrown one.
        if (!wanted) throw Error(Code::kCancelled, "done");
        co_return;
      };
      net::Headers all = headers();
      if (!last_id.empty()) all.add("Last-Event-ID", last_id);
      response = co_await listen(http, settings_.server.value + path, std::move(all), feed);
      response.body = refused;
    };
    try {
      loop.run(work());
    } catch (const Error& error) {
      if (!wanted) return;
      if (error.code() != Code::kUnavailable && error.code() != Code::kTimeout &&
          error.code() != Code::kProtocol)
        throw;
      if (failures == 59) throw unreachable(error, settings_.server.value);
    }
    if (response.status >= 400 && response.status != 503) throw problem_of(response);
    if (!wanted) return;
    Loop pause;
    pause.run(sleep_for(Duration(500)));
  }
}

}  // namespace flock::cli

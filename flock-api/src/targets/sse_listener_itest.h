// SPDX-License-Identifier: Apache-2.0
// Somebody who follows a stream of the API.
#pragma once

#include "async/loop.h"
#include "base/json.h"
#include "net/sse.h"
#include "targets/itest_stack.h"

namespace flock::targets::itest {

class SseListener {
 public:
  SseListener(Backend& backend, const std::string& api_key, const std::string& path,
              const std::string& last_id = "")
      : scope_(backend.executor) {
    net::Headers headers;
    headers.add("Authorization", "Bearer " + api_key);
    if (!last_id.empty()) headers.add("Last-Event-ID", last_id);
    scope_.spawn("listener", listen(backend.executor, backend.stack.url(path), headers));
  }
  // Begins once the server has answered: what happens from then on is heard.
  Task<void> connected() {
    co_await eventually("the stream begins", [this]() -> Task<bool> { co_return connected_; });
  }
  Task<void> stop() {
    scope_.cancel();
    co_await scope_.join();
  }
  Task<void> until(std::string what, std::function<bool()> condition) {
    co_await eventually(std::move(what), [&]() -> Task<bool> { co_return condition(); });
  }
  Task<void> until_count(std::size_t count) {
    co_await until(std::to_string(count) + " events", [&] { return events.size() >= count; });
  }
  bj::value data(std::size_t index) const { return json::parse(events.at(index).data); }
  // The types of all events, with commas.
  std::string types() const {
    std::string out;
    for (const auto& event : events) out += (out.empty() ? "" : ",") + event.event;
    return out;
  }
  std::string last_id() const {
    std::string id;
    for (const auto& event : events) id = event.id.empty() ? id : event.id;
    return id;
  }

  std::vector<net::SseEvent> events;
  std::vector<SteadyPoint> at;
  bool ended = false;
  bool hold = false;  // it does not read
  int status = 0;

 private:
  Task<void> listen(Executor executor, std::string url, net::Headers headers) {
    net::HttpClient http(executor, {});
    net::SseParser parser;
    const auto take = [&](std::string_view chunk) -> Task<void> {
      connected_ = true;
      while (hold) co_await sleep_for(Duration(20));
      for (auto& event : parser.feed(chunk)) {
        events.push_back(std::move(event));
        at.push_back(std::chrono::steady_clock::now());
      }
      co_return;
    };
    co_await http.stream("GET", url, headers, "", take, [this](int code) { status = code; });
    ended = true;
  }

  TaskScope scope_;
  bool connected_ = false;
};

}  // namespace flock::targets::itest

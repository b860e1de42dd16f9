// SPDX-License-Identifier: Apache-2.0
// For tests and benches: a backend that only hands out tokens, and a container that writes lines.
#pragma once

#include <boost/json.hpp>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "base/id.h"
#include "base/time.h"
#include "net/http_server.h"

namespace flock::agent {

// Registers everybody as one device.
struct Backend {
  explicit Backend(Executor executor)
      : server(
            executor, [this](net::Request request) { return answer(std::move(request)); },
            [](const net::Request&, std::exception_ptr) { return net::Response{500, {}, ""}; }) {
    auto listener = net::Listener::tcp(executor, "127.0.0.1", 0);
    url = "http://127.0.0.1:" + std::to_string(listener->port());
    server.listen(std::move(listener));
  }
  Task<net::Reply> answer(net::Request request) {
    ++calls;
    asked = std::move(request.body);
    boost::json::array urls;
    for (const std::string& broker : brokers) urls.push_back(boost::json::value(broker));
    const TimePoint now = system_clock().now();
    net::Reply reply;
    reply.response.body = boost::json::serialize(
        boost::json::object{{"device_id", device},
                            {"token", "token"},
                            {"server_time", to_rfc3339(now)},
                            {"token_expires_at", to_rfc3339(now + life)},
                            {"mqtt", {{"urls", std::move(urls)}, {"ca_certificates", ""}}}});
    co_return reply;
  }
  net::HttpServer server;
  std::string url, asked, device = new_uuid();
  std::vector<std::string> brokers;
  Duration life{3'600'000};
  int calls = 0;
};

// "app LINES BURST PAUSE_MS WORD": writes "WORD 1", "WORD 2", ... and then waits.
inline constexpr const char* kTalkingApp = R"c(
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
static void stop(int n) { (void)n; _exit(0); }
int main(int count, char** words) {
  signal(SIGTERM, stop);
  if (count < 5) return 2;
  int lines = atoi(words[1]), burst = atoi(words[2]), pause_ms = atoi(words[3]);
  struct timespec rest = {pause_ms / 1000, pause_ms % 1000 * 1000000L};
  for (int i = 1; i <= lines; ++i) {
    printf("%s %d ................................................................\n", words[4], i);
    if (i % burst) continue;
    fflush(stdout);
    nanosleep(&rest, 0);
  }
  fflush(stdout);
  for (;;) pause();
}
)c";

}  // namespace flock::agent

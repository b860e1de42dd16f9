// SPDX-License-Identifier: Apache-2.0
// For tests: a backend that only hands out tokens.
#pragma once

#include <boost/json.hpp>
#include <exception>
#include <string>
#include <vector>

#include "base/id.h"
#include "base/time.h"
#include "net/http_server.h"

namespace flock::agent {

// Registers everybody as one device.
struct Backend {
  explicit Backend(Executor executor)
      : server(
            executor, [this](net::Request) { return answer(); },
            [](const net::Request&, std::exception_ptr) { return net::Response{500, {}, ""}; }) {
    auto listener = net::Listener::tcp(executor, "127.0.0.1", 0);
    url = "http://127.0.0.1:" + std::to_string(listener->port());
    server.listen(std::move(listener));
  }
  Task<net::Reply> answer() {
    ++calls;
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
  std::string url, device = new_uuid();
  std::vector<std::string> brokers;
  Duration life{3'600'000};
  int calls = 0;
};

}  // namespace flock::agent

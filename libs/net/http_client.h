// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "async/task.h"
#include "net/http.h"
#include "net/stream.h"

namespace flock::net {

struct ClientOptions {
  std::shared_ptr<TlsContext> tls;  // null: system roots, made when first needed
  std::string unix_path;            // when set every request goes there (Podman's socket)
  Duration connect_time = Duration(10'000);
  Duration request_time = Duration(30'000);  // whole exchange; a stream: until the headers arrived
  std::size_t body_bytes = 16 * 1024 * 1024;
  std::size_t idle_connections = 8;  // kept per origin
  std::string user_agent = "flock";
  std::function<bool(const std::string& address)> allowed;  // stream.h: Endpoint
  bool repeatable = false;  // every request, whatever its method, may be sent twice
};

// HTTP/1.1 client with a pool of kept connections. Does not follow redirects. A request on a kept
// connection that turns out closed before any byte of the answer is sent once more on a fresh one
// (idempotent methods, or all when the options say so).
class HttpClient {
 public:
  HttpClient(Executor executor, ClientOptions options);
  ~HttpClient();

  // `url` absolute. The status is not judged. Throws kUnavailable, kTimeout, kProtocol, kTooLarge,
  // and kForbidden for an address that is not allowed.
  Task<Response> send(std::string method, std::string url, Headers headers, std::string body);
  Task<Response> get(std::string url, Headers headers = {});

  // For bodies without end or too big for memory: `on_status` is told the answer's status, then
  // `on_data` gets every chunk.
  using OnData = std::function<Task<void>(std::string_view chunk)>;
  using OnStatus = std::function<void(int status)>;
  Task<Response> stream(std::string method, std::string url, Headers headers, std::string body,
                        OnData on_data, OnStatus on_status = {});

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace flock::net

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "async/task.h"
#include "net/http.h"
#include "net/stream.h"

namespace flock::net {

// How a handler answers with a body that grows: server-sent events and followed logs.
class BodyWriter {
 public:
  virtual ~BodyWriter() = default;
  // Sends one chunk; throws Error{kUnavailable} when the peer has gone.
  virtual Task<void> write(std::string_view chunk) = 0;
};

struct Reply {
  Response response;
  // When set, `response.body` is ignored: headers go out, then this runs with the writer, then the
  // body ends.
  std::function<Task<void>(BodyWriter&)> stream;
};
using Handler = std::function<Task<Reply>(Request)>;

struct ServerLimits {
  std::size_t header_bytes = 16 * 1024;
  std::size_t body_bytes = 1024 * 1024;     // more: 413
  std::size_t connections = 10'000;         // more: 503 and close
  Duration header_time = Duration(10'000);  // a request line and headers, from the first byte
  Duration body_time = Duration(30'000);
  Duration idle_time = Duration(75'000);     // keep-alive without a request
  Duration handler_time = Duration(60'000);  // not for streams
  Duration write_time = Duration(30'000);    // a peer that does not read
};

// Serves HTTP/1.1 with keep-alive and pipelining on one listener. A handler that throws
// flock::Error is answered by `on_error`; everything malformed is answered with 400/408/413/431/501
// and the connection closed.
class HttpServer {
 public:
  using ErrorHandler = std::function<Response(const Request&, std::exception_ptr)>;
  HttpServer(Executor executor, Handler handler, ErrorHandler on_error, ServerLimits limits = {});
  ~HttpServer();

  void listen(std::unique_ptr<Listener> listener);  // may be called for several
  // Stops accepting, closes idle connections and streams, and waits until the running requests were
  // answered (with `Connection: close`). The caller sets the limit: with_deadline(), then stop().
  Task<void> drain();
  // Breaks what is left and waits until every connection task ended.
  Task<void> stop();
  std::size_t connections() const noexcept;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace flock::net

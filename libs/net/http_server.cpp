// SPDX-License-Identifier: Apache-2.0
#include "net/http_server.h"

#include <algorithm>
#include <ctime>
#include <list>
#include <string>

#include "async/deadline.h"
#include "async/event.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/log.h"
#include "net/http_parser.h"

namespace flock::net {
namespace {

// RFC 9110, 5.6.7: "Sun, 06 Nov 1994 08:49:37 GMT"; made once a second. Devices without a clock of
// their own go by it.
const std::string& http_date() {
  thread_local std::time_t made = 0;
  thread_local std::string text;
  const std::time_t now = std::time(nullptr);
  if (now != made || text.empty()) {
    std::tm parts{};
    ::gmtime_r(&now, &parts);
    char buffer[40];
    // The C locale's names, which no program of ours changes.
    text.assign(buffer, std::strftime(buffer, sizeof buffer, "%a, %d %b %Y %H:%M:%S GMT", &parts));
    made = now;
  }
  return text;
}

std::string serialize_head(const Response& response, bool keep_alive, bool chunked) {
  std::string head;
  head.reserve(256 + response.body.size());
  head += "HTTP/1.1 ";
  head += std::to_string(response.status);
  head += ' ';
  head += reason_phrase(response.status);
  head += "\r\n";
  for (const auto& [name, value] : response.headers.items()) {
    head += name;
    head += ": ";
    head += value;
    head += "\r\n";
  }
  if (!response.headers.get("Date")) {
    head += "Date: ";
    head += http_date();
    head += "\r\n";
  }
  if (chunked) {
    head += "Transfer-Encoding: chunked\r\n";
  } else if (response.status != 204 && response.status != 304) {
    head += "Content-Length: ";
    head += std::to_string(response.body.size());
    head += "\r\n";
  }
  if (!keep_alive) head += "Connection: close\r\n";
  head += "\r\n";
  return head;
}

class ChunkWriter final : public BodyWriter {
 public:
  ChunkWriter(Stream& stream, Duration limit) : stream_(stream), limit_(limit) {}
  Task<void> write(std::string_view chunk) override {
    if (chunk.empty()) co_return;  // an empty chunk would end the body
    static constexpr char kHex[] = "0123456789abcdef";
    std::string size;
    for (std::size_t n = chunk.size(); n > 0; n /= 16) size.insert(size.begin(), kHex[n % 16]);
    const std::string framed = size + "\r\n" + std::string(chunk) + "\r\n";
    stream_.expires_after(limit_);
    co_await stream_.write(framed);
    stream_.expires_after(Duration::max());
  }

 private:
  Stream& stream_;
  Duration limit_;
};

// The server's own refusals, before a handler has a request to judge (RFC 9457).
Response plain_error(int status, const std::string& code, const std::string& detail) {
  Response response;
  response.status = status;
  response.headers.add("Content-Type", "application/problem+json");
  response.body = "{\"type\":\"about:blank\",\"title\":\"" + std::string(reason_phrase(status)) +
                  "\",\"status\":" + std::to_string(status) + ",\"code\":\"" + code +
                  "\",\"detail\":\"" + detail + "\"}";
  return response;
}

}  // namespace

struct HttpServer::Impl : std::enable_shared_from_this<HttpServer::Impl> {
  enum class Phase { kIdle, kRequest, kStream };  // kIdle: between requests
  struct Connection {
    StreamPtr stream;
    Phase phase = Phase::kIdle;
  };
  using Place = std::list<Connection>::iterator;

  Impl(Executor e, Handler h, ErrorHandler on_err, ServerLimits l)
      : executor(std::move(e)),
        handler(std::move(h)),
        on_error(std::move(on_err)),
        limits(l),
        acceptors(executor),
        scope(executor),
        moved_on(executor) {}

  Task<void> accept_loop(Listener& listener) {
    for (;;) {
      StreamPtr stream;
      bool pause = false;
      try {
        stream = co_await listener.accept();
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) co_return;
        log::warn("cannot accept a connection",
                  error);  // out of descriptors: try again a little later
        pause = true;
      }
      if (pause) {
        co_await sleep_briefly();
        continue;
      }
      if (connections.size() >= limits.connections) {
        scope.spawn("refuse", refuse(std::move(stream)));
        continue;
      }
      const Place place = connections.emplace(connections.end());
      place->stream = std::move(stream);
      scope.spawn("connection", serve(shared_from_this(), place));
    }
  }

  Task<void> sleep_briefly() {
    Event never(executor);
    co_await never.wait_for(Duration(100));
  }

  Task<void> refuse(StreamPtr stream) {
    stream->expires_after(Duration(1000));
    const Response response = plain_error(503, "unavailable", "too many connections");
    const std::string text = serialize_head(response, false, false) + response.body;
    co_await stream->write(text);
    co_await stream->shutdown();
  }

  // One connection from accept to end. Failures of the connection end it and are nobody's concern.
  static Task<void> serve(std::shared_ptr<Impl> self, Place place) {
    try {
      co_await self->serve_requests(*place);
    } catch (const Error& error) {
      log::debug("connection ended", error, {{"peer", place->stream->peer()}});
    } catch (const std::exception& error) {
      // Asio's own when the task is cancelled between two waits; else a fault of a stream's
      // handler.
      if (!self->draining)
        log::error("a connection failed",
                   {{"peer", place->stream->peer()}, {"error", error.what()}});
    }
    self->connections.erase(place);
    self->moved_on.set();
  }

  Task<void> serve_requests(Connection& connection) {
    Stream& stream = *connection.stream;
    stream.expires_after(limits.header_time);
    co_await handshake(stream);
    InputBuffer input;
    for (bool open = true; open;) {
      auto parser = MessageParser::request({limits.header_bytes, limits.body_bytes});
      const bool idle = input.view().empty();
      connection.phase = idle ? Phase::kIdle : Phase::kRequest;
      if (idle && draining) co_return;
      stream.expires_after(idle ? limits.idle_time : limits.header_time);

      Response refusal;
      bool refused = false;
      try {
        if (!co_await read_request(connection, *parser, input)) co_return;
      } catch (const Error& error) {
        if (!parser->started() || error.code() == Code::kCancelled ||
            error.code() == Code::kUnavailable)
          throw;
        refusal = refusal_for(error);
        refused = true;
      }
      if (refused) {
        co_await answer_and_close(stream, refusal);
        co_return;
      }
      open = parser->keep_alive();
      Request request = parser->take_request();
      request.peer = stream.peer();
      stream.expires_after(Duration::max());
      open = co_await answer(connection, std::move(request), open);
    }
    co_await stream.shutdown();
  }

  // False when the peer ended the connection between requests.
  Task<bool> read_request(Connection& connection, MessageParser& parser, InputBuffer& input) {
    Stream& stream = *connection.stream;
    bool in_body = false;
    while (!parser.done()) {
      if (!input.view().empty()) {
        if (connection.phase == Phase::kIdle) {
          connection.phase = Phase::kRequest;
          stream.expires_after(limits.header_time);
        }
        const std::size_t used = parser.put(input.view());
        input.consume(used);
        if (parser.done()) break;
        if (parser.header_done() && !in_body) {
          in_body = true;
          stream.expires_after(limits.body_time);
          if (parser.expects_continue()) co_await stream.write("HTTP/1.1 100 Continue\r\n\r\n");
        }
        if (used > 0 && !input.view().empty()) continue;
        if (input.view().size() > limits.header_bytes) throw Error(Code::kTooLarge, "header");
      }
      if (!co_await input.fill(stream)) {
        if (!parser.started() && input.view().empty()) co_return false;
        throw Error(Code::kUnavailable, "the peer closed the connection within a request");
      }
    }
    co_return true;
  }

  static Response refusal_for(const Error& error) {
    if (error.code() == Code::kTimeout)
      return plain_error(408, "timeout", "the request took too long to arrive");
    if (error.code() == Code::kTooLarge && error.message() == "header") {
      return plain_error(431, "too_large", "the request line and headers are too large");
    }
    if (error.code() == Code::kTooLarge)
      return plain_error(413, "too_large", "the request body is too large");
    return plain_error(400, "invalid_argument", "the request is not valid HTTP/1.1");
  }

  Task<void> answer_and_close(Stream& stream, const Response& response) {
    stream.expires_after(Duration(2000));
    const std::string text = serialize_head(response, false, false) + response.body;
    co_await stream.write(text);
    co_await stream.shutdown();
    // Reading on for a moment lets the answer reach a peer that still sends (RFC 9112, 9.6); the
    // time above ends it for one that never stops.
    std::string sink(64 * 1024, '\0');
    while (co_await stream.read_some(sink.data(), sink.size()) != 0) {
    }
  }

  // True when the connection can carry another request.
  Task<bool> answer(Connection& connection, Request request, bool keep_alive) {
    Stream& stream = *connection.stream;
    Reply reply;
    std::exception_ptr failure;
    const bool head = request.method == "HEAD";
    // The handler has no timer of its own here: its waits have deadlines, and a slow one shows in
    // the metrics.
    try {
      reply = co_await handler(request);
      if (reply.stream && draining) throw Error(Code::kUnavailable, "the server is stopping");
    } catch (...) {
      failure = std::current_exception();
    }
    if (failure) reply.response = on_error(request, failure);
    keep_alive = keep_alive && !draining;

    if (!reply.stream || failure || head) {
      std::string text =
          serialize_head(reply.response, keep_alive, head && reply.stream && !failure);
      if (!head) text += reply.response.body;
      stream.expires_after(limits.write_time);
      co_await stream.write(text);
      co_return keep_alive;
    }
    const std::string text = serialize_head(reply.response, keep_alive, true);
    stream.expires_after(limits.write_time);
    co_await stream.write(text);
    stream.expires_after(Duration::max());
    connection.phase = Phase::kStream;
    ChunkWriter writer(stream, limits.write_time);
    co_await reply.stream(writer);
    stream.expires_after(limits.write_time);
    co_await stream.write("0\r\n\r\n");
    co_return keep_alive;
  }

  // A stream has no end of its own; its reader takes it up again elsewhere.
  Task<void> close_the_door() {
    draining = true;
    for (const auto& listener : listeners) listener->close();
    acceptors.cancel();
    co_await acceptors.join();
    for (auto& connection : connections) {
      if (connection.phase != Phase::kRequest) connection.stream->close();
    }
  }

  bool busy() const {
    return std::any_of(connections.begin(), connections.end(),
                       [](const Connection& c) { return c.phase == Phase::kRequest; });
  }

  Executor executor;
  Handler handler;
  ErrorHandler on_error;
  ServerLimits limits;
  std::vector<std::unique_ptr<Listener>> listeners;
  std::list<Connection> connections;
  TaskScope acceptors, scope;
  Event moved_on;  // set whenever a connection ended
  bool draining = false;
};

HttpServer::HttpServer(Executor executor, Handler handler, ErrorHandler on_error,
                       ServerLimits limits)
    : impl_(std::make_shared<Impl>(std::move(executor), std::move(handler), std::move(on_error),
                                   limits)) {}
HttpServer::~HttpServer() = default;

void HttpServer::listen(std::unique_ptr<Listener> listener) {
  impl_->listeners.push_back(std::move(listener));
  impl_->acceptors.spawn("accept", impl_->accept_loop(*impl_->listeners.back()));
}

Task<void> HttpServer::drain() {
  const auto impl = impl_;
  co_await impl->close_the_door();
  while (impl->busy()) {
    impl->moved_on.reset();
    co_await impl->moved_on.wait();
  }
}

Task<void> HttpServer::stop() {
  const auto impl = impl_;
  co_await impl->close_the_door();
  impl->scope.cancel();
  for (auto& connection : impl->connections) connection.stream->close();
  co_await impl->scope.join();
}

std::size_t HttpServer::connections() const noexcept { return impl_->connections.size(); }

}  // namespace flock::net

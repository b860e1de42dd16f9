// SPDX-License-Identifier: Apache-2.0
#include "net/http_client.h"

#include <map>
#include <vector>

#include "async/deadline.h"
#include "base/bytes.h"
#include "base/error.h"
#include "net/http_parser.h"

namespace flock::net {

struct HttpClient::Impl {
  struct Connection {
    StreamPtr stream;
    InputBuffer input;
  };
  using ConnectionPtr = std::unique_ptr<Connection>;

  struct Exchange {
    std::string method, origin, text;
    Endpoint endpoint;
    OnData on_data;
    OnStatus on_status;
  };

  Impl(Executor e, ClientOptions o) : executor(std::move(e)), options(std::move(o)) {}

  Exchange prepare(std::string method, const std::string& address, const Headers& headers,
                   const std::string& body) {
    const Url url = parse_url(address);
    if (url.scheme != "http" && url.scheme != "https") {
      throw Error(Code::kInvalidArgument, "not an http or https URL").with("url", address);
    }
    Exchange exchange;
    exchange.method = std::move(method);
    exchange.origin = url.scheme + "://" + url.host + ":" + url.port;
    if (!options.unix_path.empty()) {
      exchange.endpoint.kind = Endpoint::Kind::kUnix;
      exchange.endpoint.path = options.unix_path;
    } else {
      exchange.endpoint.kind = url.scheme == "https" ? Endpoint::Kind::kTls : Endpoint::Kind::kTcp;
      exchange.endpoint.host = url.host;
      exchange.endpoint.port = url.port;
      exchange.endpoint.tls = options.tls;
      exchange.endpoint.allowed = options.allowed;
    }
    const bool default_port = url.port == (url.scheme == "https" ? "443" : "80");
    const std::string host =
        url.host.find(':') == std::string::npos ? url.host : "[" + url.host + "]";
    std::string& text = exchange.text;
    text = exchange.method + " " + url.path + " HTTP/1.1\r\nHost: " + host +
           (default_port ? "" : ":" + url.port) + "\r\n";
    if (!headers.get("User-Agent")) text += "User-Agent: " + options.user_agent + "\r\n";
    if (!url.user.empty() && !headers.get("Authorization")) {
      text += "Authorization: Basic " + to_base64(url.user + ":" + url.password) + "\r\n";
    }
    for (const auto& [name, value] : headers.items()) {
      if ((name + value).find_first_of("\r\n") != std::string::npos) {
        throw Error(Code::kInvalidArgument, "a header holds a line break").with("header", name);
      }
      text += name + ": " + value + "\r\n";
    }
    if (!body.empty() ||
        (exchange.method != "GET" && exchange.method != "HEAD" && exchange.method != "DELETE")) {
      text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
    }
    text += "\r\n" + body;
    return exchange;
  }

  ConnectionPtr take_idle(const std::string& origin) {
    const auto found = idle.find(origin);
    if (found == idle.end() || found->second.empty()) return nullptr;
    ConnectionPtr connection = std::move(found->second.back());
    found->second.pop_back();
    return connection;
  }

  void keep(const std::string& origin, ConnectionPtr connection) {
    auto& kept = idle[origin];
    if (kept.size() >= options.idle_connections || !connection->input.view().empty()) return;
    connection->stream->expires_after(Duration::max());
    kept.push_back(std::move(connection));
  }

  Task<Response> run(Exchange exchange) {
    ConnectionPtr connection = take_idle(exchange.origin);
    if (connection) {
      const bool idempotent = options.repeatable || exchange.method == "GET" ||
                              exchange.method == "HEAD" || exchange.method == "PUT" ||
                              exchange.method == "DELETE";
      bool answered = false, stale = false;
      std::optional<Response> response;
      try {
        response = co_await exchange_on(*connection, exchange, answered);
      } catch (const Error& error) {
        // The server closed the kept connection just as we used it.
        stale = !answered && error.code() == Code::kUnavailable && idempotent;
        if (!stale) throw;
      }
      if (!stale) {
        finish(exchange.origin, std::move(connection));
        co_return std::move(*response);
      }
    }
    connection = std::make_unique<Connection>();
    Task<StreamPtr> connecting = connect(exchange.endpoint);
    connection->stream = co_await with_deadline(std::move(connecting), options.connect_time,
                                                "connecting to " + exchange.origin);
    bool answered = false;
    Response response = co_await exchange_on(*connection, exchange, answered);
    finish(exchange.origin, std::move(connection));
    co_return response;
  }

  // A connection whose answer asked for closing was marked by clearing its stream.
  void finish(const std::string& origin, ConnectionPtr connection) {
    if (connection->stream) keep(origin, std::move(connection));
  }

  Task<Response> exchange_on(Connection& connection, const Exchange& exchange, bool& answered) {
    Stream& stream = *connection.stream;
    stream.expires_after(options.request_time);
    co_await stream.write(exchange.text);
    const std::size_t body_limit = exchange.on_data ? SIZE_MAX : options.body_bytes;
    std::unique_ptr<MessageParser> parser;
    Response response;
    bool have_head = false;
    for (;;) {
      parser = MessageParser::response({64 * 1024, body_limit}, exchange.method == "HEAD");
      while (!parser->done()) {
        if (connection.input.view().empty()) {
          if (!co_await connection.input.fill(stream)) {
            if (!parser->header_done())
              throw Error(Code::kUnavailable, "the server closed the connection")
                  .with("server", exchange.origin);
            parser->put_end();
            break;
          }
          answered = true;
        }
        const std::size_t used = parser->put(connection.input.view());
        connection.input.consume(used);
        if (exchange.on_data && parser->header_done()) {
          if (!have_head) {
            have_head = true;
            stream.expires_after(Duration::max());
            if (exchange.on_status) exchange.on_status(parser->status());
          }
          const std::string chunk = parser->take_body();
          if (!chunk.empty()) co_await exchange.on_data(chunk);
        }
        if (used == 0 && !parser->done()) {
          if (!co_await connection.input.fill(stream))
            throw Error(Code::kUnavailable, "the server closed the connection")
                .with("server", exchange.origin);
        }
      }
      const bool keep_alive = parser->keep_alive();
      response = parser->take_response();
      if (response.status == 100)
        continue;  // RFC 9110, 15.2: an interim answer comes before the real one
      if (!keep_alive) connection.stream.reset();
      co_return response;
    }
  }

  Executor executor;
  ClientOptions options;
  std::map<std::string, std::vector<ConnectionPtr>> idle;
};

HttpClient::HttpClient(Executor executor, ClientOptions options)
    : impl_(std::make_shared<Impl>(std::move(executor), std::move(options))) {}
HttpClient::~HttpClient() = default;

Task<Response> HttpClient::send(std::string method, std::string url, Headers headers,
                                std::string body) {
  const auto impl = impl_;
  Impl::Exchange exchange = impl->prepare(std::move(method), url, headers, body);
  const std::string what = exchange.method + " " + exchange.origin;
  Task<Response> running = impl->run(std::move(exchange));
  co_return co_await with_deadline(std::move(running), impl->options.request_time, what);
}

Task<Response> HttpClient::get(std::string url, Headers headers) {
  co_return co_await send("GET", std::move(url), std::move(headers), "");
}

Task<Response> HttpClient::stream(std::string method, std::string url, Headers headers,
                                  std::string body, OnData on_data, OnStatus on_status) {
  const auto impl = impl_;
  Impl::Exchange exchange = impl->prepare(std::move(method), url, headers, body);
  exchange.on_data = std::move(on_data);
  exchange.on_status = std::move(on_status);
  co_return co_await impl->run(std::move(exchange));
}

}  // namespace flock::net

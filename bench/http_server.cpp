// SPDX-License-Identifier: Apache-2.0
// A JSON answer from Flock's HTTP server, for bench/http.sh. Prints its port, serves until SIGTERM.
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json.hpp>
#include <cstdio>

#include "async/loop.h"
#include "base/error.h"
#include "net/http_server.h"
#include "net/router.h"

using namespace flock;

namespace {

Task<net::Reply> hello(net::Request, net::Parameters parameters) {
  net::Reply reply;
  reply.response.headers.add("Content-Type", "application/json");
  reply.response.body =
      boost::json::serialize(boost::json::object{{"id", "0190f3a2-7c11-7abc-8def-0123456789ab"},
                                                 {"name", parameters["name"]},
                                                 {"state", "ONLINE"},
                                                 {"version", 12}});
  co_return reply;
}

Task<void> serve() {
  const Executor executor = co_await asio::this_coro::executor;
  net::Router router;
  router.add("GET", "/v1/hello/{name}", hello);
  const auto handler = [&router](net::Request request) -> Task<net::Reply> {
    const auto match = router.match(request.method, request.path());
    if (match.route == nullptr) throw Error(Code::kNotFound, "no such path");
    co_return co_await match.route->handler(std::move(request), match.parameters);
  };
  const auto on_error = [](const net::Request&, std::exception_ptr) {
    return net::Response{500, {}, "error"};
  };
  net::HttpServer server(executor, handler, on_error);
  auto listener = net::Listener::tcp(executor, "127.0.0.1", 0);
  std::printf("%d\n", listener->port());
  std::fflush(stdout);
  server.listen(std::move(listener));
  asio::signal_set signals(executor, SIGTERM, SIGINT);
  co_await signals.async_wait(asio::use_awaitable);
  co_await server.stop();
}

}  // namespace

int main() {
  Loop loop;
  loop.run(serve());
}

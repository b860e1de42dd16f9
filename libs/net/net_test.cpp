// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <stdexcept>

#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "crypto/keys.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "net/router.h"
#include "net/sse.h"
#include "testing/run_task.h"

namespace flock::net {
namespace {

using flock::testing::code_of;
using flock::testing::code_of_task;
using flock::testing::run_task;

Task<Reply> echo(Request request) {
  if (request.path() == "/fail") throw Error(Code::kNotFound, "nothing here");
  Reply reply;
  if (request.path() == "/slow") co_await sleep_for(Duration(150));
  if (request.path() == "/big") {
    reply.response.body.assign(32 << 20, 'b');
    co_return reply;
  }
  if (request.path() == "/endless") {
    reply.stream = [](BodyWriter& out) -> Task<void> {
      co_await out.write("first");
      co_await sleep_for(Duration(60'000));
    };
    co_return reply;
  }
  if (request.path() == "/broken-stream") {
    reply.stream = [](BodyWriter& out) -> Task<void> {
      co_await out.write("first");
      throw std::runtime_error("a fault that is no flock::Error");
    };
    co_return reply;
  }
  if (request.path() == "/stream") {
    reply.stream = [](BodyWriter& out) -> Task<void> {
      co_await out.write("one ");
      co_await out.write("two");
    };
    co_return reply;
  }
  reply.response.body = request.method + " " + request.path() + " " + request.body;
  co_return reply;
}

Response on_error(const Request&, std::exception_ptr) { return {404, {}, "sorry"}; }

// A server on a free port and a raw or an HTTP client against it.
struct Fixture {
  explicit Fixture(Executor executor, ServerLimits limits = {},
                   std::shared_ptr<TlsContext> tls = nullptr)
      : server(executor, echo, on_error, limits) {
    auto listener = Listener::tcp(executor, "127.0.0.1", 0, tls);
    port = listener->port();
    server.listen(std::move(listener));
  }
  std::string url(const std::string& path, const std::string& scheme = "http") const {
    return scheme + "://127.0.0.1:" + std::to_string(port) + path;
  }
  Task<StreamPtr> dial() const {
    Endpoint endpoint;
    endpoint.host = "127.0.0.1";
    endpoint.port = std::to_string(port);
    auto stream = co_await connect(endpoint);
    stream->expires_after(Duration(4000));
    co_return stream;
  }
  HttpServer server;
  int port = 0;
};

// Everything the peer sends until it closes.
Task<std::string> read_all(Stream& stream) {
  std::string all;
  char block[4096];
  while (const std::size_t got = co_await stream.read_some(block, sizeof block))
    all.append(block, got);
  co_return all;
}

Task<std::string> raw_exchange(Fixture& fixture, std::string request) {
  StreamPtr stream = co_await fixture.dial();
  co_await stream->write(request);
  co_return co_await read_all(*stream);
}

TEST(HttpServer, KeepsTheConnectionAndAnswersErrorsThroughTheHandler) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    Fixture fixture(executor);
    HttpClient client(executor, {});
    const Response first = co_await client.send("POST", fixture.url("/a%20b?x=1"), {}, "body");
    EXPECT_EQ(first.status, 200);
    EXPECT_EQ(first.body, "POST /a b body");
    const Response second = co_await client.get(fixture.url("/fail"));
    EXPECT_EQ(second.status, 404);
    EXPECT_EQ(second.body, "sorry");
    const std::string date(second.headers.get("Date").value_or(""));  // RFC 9110, 6.6.1
    EXPECT_TRUE(date.size() == 29 && date.ends_with(" GMT")) << date;
    EXPECT_EQ(fixture.server.connections(), 1u);
    co_await fixture.server.stop();
    EXPECT_EQ(fixture.server.connections(), 0u);
  });
}

TEST(HttpServer, AnswersPipelinedRequestsInOrder) {
  run_task([]() -> Task<void> {
    Fixture fixture(co_await asio::this_coro::executor);
    const std::string all =
        co_await raw_exchange(fixture,
                              "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: "
                              "x\r\nConnection: close\r\n\r\n");
    EXPECT_LT(all.find("GET /1"), all.find("GET /2"));
    EXPECT_NE(all.find("GET /2"), std::string::npos);
    co_await fixture.server.stop();
  });
}

TEST(HttpServer, RefusesWhatIsMalformedOrTooLarge) {
  run_task([]() -> Task<void> {
    ServerLimits limits;
    limits.header_bytes = 1024;
    limits.body_bytes = 100;
    Fixture fixture(co_await asio::this_coro::executor, limits);
    const std::pair<std::string, std::string> cases[] = {
        {"nonsense\r\n\r\n", "HTTP/1.1 400"},
        {"GET / HTTP/1.1\r\nHost: x\r\nX: " + std::string(2000, 'a') + "\r\n\r\n", "HTTP/1.1 431"},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n", "HTTP/1.1 413"},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n80\r\n" +
             std::string(128, 'b') + "\r\n0\r\n\r\n",
         "HTTP/1.1 413"},
        // Two lengths are how requests are smuggled past a proxy (RFC 9112, 6.3).
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: "
         "chunked\r\n\r\n0\r\n\r\n",
         "HTTP/1.1 400"},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
         "HTTP/1.1 400"},
    };
    for (const auto& [request, wanted] : cases) {
      const std::string answer = co_await raw_exchange(fixture, request);
      EXPECT_EQ(answer.substr(0, wanted.size()), wanted) << request.substr(0, 60);
    }
    co_await fixture.server.stop();
  });
}

TEST(HttpServer, EndsSlowAndSilentClients) {
  run_task([]() -> Task<void> {
    ServerLimits limits;
    limits.header_time = Duration(100);
    limits.idle_time = Duration(100);
    Fixture fixture(co_await asio::this_coro::executor, limits);
    const std::string slow = co_await raw_exchange(fixture, "GET / HT");
    EXPECT_EQ(slow.substr(0, 12), "HTTP/1.1 408");
    StreamPtr silent = co_await fixture.dial();
    char byte;
    EXPECT_EQ(co_await silent->read_some(&byte, 1), 0u);
    co_await fixture.server.stop();
  });
}

TEST(HttpServer, EndsASlowBodyAndAReaderThatDoesNotRead) {
  run_task([]() -> Task<void> {
    ServerLimits limits;
    limits.body_time = limits.write_time = Duration(150);
    Fixture fixture(co_await asio::this_coro::executor, limits);
    // The limit is for the whole body: a byte now and then does not renew it.
    StreamPtr slow = co_await fixture.dial();
    co_await slow->write("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n");
    for (int i = 0; i < 8; ++i) {
      co_await slow->write("x");
      co_await sleep_for(Duration(30));
    }
    const std::string answer = co_await read_all(*slow);
    EXPECT_EQ(answer.substr(0, 12), "HTTP/1.1 408");
    StreamPtr deaf = co_await fixture.dial();
    co_await deaf->write("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    while (fixture.server.connections() > 0) co_await sleep_for(Duration(10));
    co_await fixture.server.stop();
  });
}

TEST(HttpServer, AnswersAPeerThatEndedItsSide) {
  run_task([]() -> Task<void> {
    Fixture fixture(co_await asio::this_coro::executor);
    StreamPtr stream = co_await fixture.dial();
    co_await stream->write("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    co_await stream->shutdown();
    const std::string answer = co_await read_all(*stream);
    EXPECT_EQ(answer.substr(0, 12), "HTTP/1.1 200");
    co_await fixture.server.stop();
  });
}

TEST(HttpServer, TellsTheSenderOfAHugeBodyThatItIsTooLarge) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    Fixture fixture(executor);
    HttpClient client(executor, {});
    // The sender writes everything before it reads: the answer must outlive the unread bytes.
    const Response response =
        co_await client.send("POST", fixture.url("/"), {}, std::string(10 << 20, 'x'));
    EXPECT_EQ(response.status, 413);
    co_await fixture.server.stop();
  });
}

TEST(HttpServer, DrainWaitsForRequestsAndEndsStreams) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    Fixture fixture(executor);
    HttpClient client(executor, {});
    StreamPtr idle = co_await fixture.dial(), endless = co_await fixture.dial();
    co_await endless->write("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
    char byte;
    co_await endless->read_some(&byte, 1);
    std::optional<Response> slow;
    const auto ask = [&]() -> Task<void> { slow = co_await client.get(fixture.url("/slow")); };
    TaskScope scope(executor);
    scope.spawn("slow", ask());
    while (fixture.server.connections() < 3) co_await sleep_for(Duration(5));
    co_await sleep_for(Duration(30));
    co_await fixture.server.drain();
    co_await fixture.server.stop();
    co_await scope.join();
    EXPECT_TRUE(slow && slow->status == 200) << "drain did not wait for the answer";
    EXPECT_EQ(fixture.server.connections(), 0u);
  });
}

TEST(HttpServer, ForgetsAConnectionWhoseStreamFailsOddly) {
  run_task([]() -> Task<void> {
    Fixture fixture(co_await asio::this_coro::executor);
    const std::string cut =
        co_await raw_exchange(fixture, "GET /broken-stream HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_NE(cut.find("first"), std::string::npos);
    EXPECT_EQ(fixture.server.connections(), 0u);
    const std::string head =
        co_await raw_exchange(fixture,
                              "HEAD /stream HTTP/1.1\r\nHost: x\r\nConnection: "
                              "close\r\n\r\n");
    EXPECT_TRUE(head.ends_with("\r\n\r\n")) << "an answer to HEAD has no body";
    co_await fixture.server.stop();
  });
}

TEST(HttpServer, StreamsChunksAndDrainsWithRequestsInFlight) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    Fixture fixture(executor);
    HttpClient client(executor, {});
    std::string got;
    const auto collect = [&](std::string_view chunk) -> Task<void> {
      got += chunk;
      co_return;
    };
    const Response response =
        co_await client.stream("GET", fixture.url("/stream"), {}, "", collect);
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(got, "one two");
    co_await fixture.server.drain();
    Task<Response> late = client.get(fixture.url("/late"));
    const auto ignore = [](Task<Response> task) -> Task<void> { co_await std::move(task); };
    EXPECT_EQ(co_await code_of_task(ignore(std::move(late))), Code::kUnavailable);
    co_await fixture.server.stop();
  });
}

TEST(HttpClient, SendsAnIdempotentRequestAgainWhenTheKeptConnectionWasClosed) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    ServerLimits limits;
    limits.idle_time = Duration(50);
    Fixture fixture(executor, limits);
    HttpClient client(executor, {});
    co_await client.get(fixture.url("/1"));
    Event never(executor);
    while (fixture.server.connections() > 0) co_await never.wait_for(Duration(10));
    const Response again = co_await client.get(fixture.url("/2"));
    EXPECT_EQ(again.body, "GET /2 ");
    co_await fixture.server.stop();
  });
}

TEST(Tls, VerifiesTheCertificateAndTheName) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    const auto ca = crypto::make_ca("test", 1);
    const auto issued = crypto::issue_certificate(ca, {"127.0.0.1"}, 1);
    const auto other = crypto::issue_certificate(ca, {"elsewhere.example"}, 1);
    const auto server_tls = [](const crypto::Certificate& c) {
      TlsOptions options;
      options.certificate_pem = c.certificate_pem;
      options.key_pem = c.key_pem;
      return make_tls_server(options);
    };
    TlsOptions trust;
    trust.ca_pem = ca.certificate_pem;
    Fixture good(executor, {}, server_tls(issued)), wrong_name(executor, {}, server_tls(other));
    ClientOptions with_ca;
    with_ca.tls = make_tls_client(trust);
    HttpClient trusting(executor, with_ca), stranger(executor, {});
    const Response response =
        co_await trusting.send("PUT", good.url("/x", "https"), {}, std::string(100'000, 'z'));
    EXPECT_EQ(response.body.size(), 100'007u);

    const auto get = [](HttpClient& client, std::string url) -> Task<void> {
      co_await client.get(url);
    };
    EXPECT_EQ(co_await code_of_task(get(trusting, wrong_name.url("/", "https"))), Code::kProtocol);
    EXPECT_EQ(co_await code_of_task(get(stranger, good.url("/", "https"))), Code::kProtocol);
    co_await good.server.stop();
    co_await wrong_name.server.stop();
  });
}

TEST(Router, PrefersLiteralsAndNamesTheAllowedMethods) {
  Router router;
  const auto nothing = [](Request, Parameters) -> Task<Reply> { co_return Reply(); };
  router.add("GET", "/v1/devices/{id}", nothing);
  router.add("POST", "/v1/devices/register", nothing);
  router.add("GET", "/v1/devices/special", nothing);
  EXPECT_EQ(router.match("GET", "/v1/devices/special").route->pattern, "/v1/devices/special");
  EXPECT_EQ(router.match("GET", "/v1/devices/a%20b").parameters.at("id"), "a b");
  EXPECT_EQ(router.match("GET", "/v1/devices/1%2F2").parameters.at("id"), "1/2");
  EXPECT_EQ(router.match("GET", "/v1/devices/%73pecial").route->pattern, "/v1/devices/special");
  EXPECT_EQ(router.match("DELETE", "/v1/devices/x").allowed, std::vector<std::string>{"GET"});
  EXPECT_EQ(router.match("GET", "/v1/devices/").route, nullptr);
  EXPECT_TRUE(router.match("GET", "/nowhere").allowed.empty());
}

TEST(Sse, SurvivesEverySplit) {
  const std::string wire =
      std::string(kSseKeepAlive) + format_sse({"7", "rollout", "a\nb"}) + "data: c\r\n\r\n";
  for (std::size_t cut = 0; cut <= wire.size(); ++cut) {
    SseParser parser;
    auto events = parser.feed(wire.substr(0, cut));
    for (auto& event : parser.feed(wire.substr(cut))) events.push_back(event);
    ASSERT_EQ(events.size(), 2u) << cut;
    EXPECT_EQ(events[0].id, "7");
    EXPECT_EQ(events[0].data, "a\nb");
    EXPECT_EQ(events[1].data, "c");
  }
}

TEST(Url, ReadsTheUsualFormsAndRefusesOthers) {
  EXPECT_EQ(parse_url("https://h.example/v1?x=1").port, "443");
  EXPECT_EQ(parse_url("https://h.example/v1?x=1").path, "/v1?x=1");
  EXPECT_EQ(parse_url("http://[::1]:80").host, "::1");
  EXPECT_EQ(parse_url("wss://u:p%40@h:1/mqtt").password, "p@");
  for (const char* bad : {"", "nonsense", "http://", "http:///x", "http://h:port"}) {
    EXPECT_EQ(code_of([&] { parse_url(bad); }), Code::kInvalidArgument) << bad;
  }
  EXPECT_EQ(parse_host_port("[::1]:8080").host, "::1");
  EXPECT_EQ(parse_host_port(":8080").port, 8080);
  for (const char* bad : {"", "host", "host:", "host:70000", "::1:80", "h:8x"}) {
    EXPECT_EQ(code_of([&] { parse_host_port(bad); }), Code::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace flock::net

// SPDX-License-Identifier: Apache-2.0
// The WebSocket client against a server that does exactly what a test says.
#include "net/websocket.h"

#include <gtest/gtest.h>

#include <random>

#include "async/deadline.h"
#include "async/event.h"
#include "async/scope.h"
#include "base/error.h"
#include "testing/run_task.h"

namespace flock::net {
namespace {

using flock::testing::code_of;
using flock::testing::code_of_task;
using flock::testing::run_task;
using websocket::FrameHeader;
using websocket::Opcode;

std::string frame(Opcode opcode, std::string_view body, bool final = true) {
  std::string out;
  websocket::put_header(out, {final, opcode, body.size(), std::nullopt});
  return out + std::string(body);
}

TEST(WebSocketFrame, ReadsWhatItWritesAtEveryLengthAndCut) {
  for (const std::uint64_t length : {0ul, 1ul, 125ul, 126ul, 65535ul, 65536ul, 1ul << 40}) {
    for (const bool masked : {false, true}) {
      FrameHeader header{true, Opcode::kBinary, length, std::nullopt};
      if (masked) header.mask = 0x12345678;
      std::string wire;
      websocket::put_header(wire, header);
      for (std::size_t cut = 0; cut < wire.size(); ++cut) {
        std::string_view part = std::string_view(wire).substr(0, cut);
        EXPECT_FALSE(websocket::parse_header(part)) << length << " " << cut;
      }
      wire += "rest";
      std::string_view input = wire;
      const auto back = websocket::parse_header(input);
      ASSERT_TRUE(back);
      EXPECT_EQ(back->length, length);
      EXPECT_EQ(back->mask, header.mask);
      EXPECT_EQ(input, "rest");
    }
  }
}

TEST(WebSocketFrame, MasksAndAcceptsAsTheRfcShows) {
  EXPECT_EQ(websocket::accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
  std::string wire = "\x37\xfa\x21\x3d", out;  // 5.7: a masked "Hello"
  std::uint32_t key = 0;
  std::memcpy(&key, wire.data(), 4);
  websocket::put_masked(out, "Hello", key);
  EXPECT_EQ(out, "\x7f\x9f\x4d\x51\x58");
}

TEST(WebSocketFrame, RefusesWhatTheRfcForbids) {
  const std::pair<const char*, std::string> cases[] = {
      {"reserved bit", std::string("\xc2\x00", 2)},
      {"unknown data opcode", std::string("\x83\x00", 2)},
      {"unknown control opcode", std::string("\x8b\x00", 2)},
      {"fragmented ping", std::string("\x09\x00", 2)},
      {"long ping", std::string("\x89\x7e\x00\x7e", 4)},
      {"length 125 in two bytes", std::string("\x82\x7e\x00\x7d", 4)},
      {"length 65535 in eight bytes", std::string("\x82\x7f\0\0\0\0\0\0\xff\xff", 10)},
      {"highest bit of a length", std::string("\x82\x7f\x80\0\0\0\0\0\0\0", 10)},
  };
  for (const auto& [name, wire] : cases) {
    std::string_view input = wire;
    EXPECT_EQ(code_of([&] { websocket::parse_header(input); }), Code::kProtocol) << name;
  }
}

TEST(WebSocketFrame, NeverCrashesOnRandomBytes) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 50'000; ++round) {
    std::string wire;
    for (unsigned n = random() % 20; n > 0; --n) wire += static_cast<char>(random());
    std::string_view input = wire;
    try {
      while (websocket::parse_header(input)) {
      }
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kProtocol);
    }
    EXPECT_LE(input.size(), wire.size());
  }
}

// The server's side of one connection, by hand.
struct Peer {
  StreamPtr stream;
  std::string input;

  Task<void> more() {
    char block[8192];
    const std::size_t got = co_await stream->read_some(block, sizeof block);
    if (got == 0) throw Error(Code::kUnavailable, "the client closed");
    input.append(block, got);
  }
  Task<std::string> request() {
    while (input.find("\r\n\r\n") == std::string::npos) co_await more();
    const std::size_t end = input.find("\r\n\r\n") + 4;
    const std::string head = input.substr(0, end);
    input.erase(0, end);
    co_return head;
  }
  Task<std::pair<FrameHeader, std::string>> frame() {
    for (;;) {
      std::string_view rest = input;
      const auto header = websocket::parse_header(rest);
      if (!header || rest.size() < header->length) {
        co_await more();
        continue;
      }
      EXPECT_TRUE(header->mask) << "a client must mask";
      std::string body;
      websocket::put_masked(body, rest.substr(0, header->length), header->mask.value_or(0));
      input.erase(0, input.size() - rest.size() + header->length);
      co_return std::pair(*header, body);
    }
  }
};

std::string answer_to(const std::string& request, const std::string& more = "") {
  const std::string name = "Sec-WebSocket-Key: ";
  const std::size_t at = request.find(name) + name.size();
  return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, "
         "Upgrade\r\nSec-WebSocket-Accept: " +
         websocket::accept_key(request.substr(at, request.find('\r', at) - at)) + "\r\n" +
         (more.empty() ? "Sec-WebSocket-Protocol: mqtt\r\n" : more) + "\r\n";
}

struct Server {
  explicit Server(Executor executor) : listener(Listener::tcp(executor, "127.0.0.1", 0)) {}
  Task<StreamPtr> dial() {
    Endpoint endpoint;
    endpoint.host = "127.0.0.1";
    endpoint.port = std::to_string(listener->port());
    StreamPtr lower = co_await connect(endpoint);
    WebSocketOptions options;
    options.host = "127.0.0.1";
    options.port = endpoint.port;
    options.path = "/mqtt?x=1";
    options.subprotocol = "mqtt";
    options.message_bytes = 100'000;
    options.headers.add("X-More", "yes");
    co_return co_await websocket_client(std::move(lower), options);
  }
  std::unique_ptr<Listener> listener;
};

// A client stream and its peer after the handshake; `first` comes in the same block as the answer.
using Body = std::function<Task<void>(Stream&, Peer&)>;
void with_pair(Body body, std::string first = "") {
  run_task([&]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    Server server(executor);
    StreamPtr client;
    const auto dial = [&]() -> Task<void> { client = co_await server.dial(); };
    TaskScope scope(executor);
    scope.spawn("dial", dial());
    Peer peer{co_await server.listener->accept(), ""};
    const std::string request = co_await peer.request();
    EXPECT_EQ(request.substr(0, 24), "GET /mqtt?x=1 HTTP/1.1\r\n");
    EXPECT_NE(request.find("Sec-WebSocket-Protocol: mqtt\r\n"), std::string::npos);
    EXPECT_NE(request.find("X-More: yes\r\n"), std::string::npos);
    const std::string answer = answer_to(request) + first;
    co_await peer.stream->write(answer);
    co_await scope.join();
    if (client) co_await body(*client, peer);
    EXPECT_TRUE(client);
  });
}

Task<std::string> read_exactly(Stream& stream, std::size_t count) {
  std::string all(count, '\0');
  for (std::size_t got = 0; got < count;) {
    const std::size_t more = co_await stream.read_some(all.data() + got, count - got);
    if (more == 0) throw Error(Code::kUnavailable, "the end");
    got += more;
  }
  co_return all;
}

Task<void> read_one(Stream& stream) {
  char byte;
  co_await stream.read_some(&byte, 1);
}

TEST(WebSocket, CarriesBytesAcrossFramesFragmentsAndPings) {
  const std::string first = frame(Opcode::kBinary, "ab") + frame(Opcode::kBinary, "");
  const auto body = [](Stream& client, Peer& peer) -> Task<void> {
    const std::string rest = frame(Opcode::kBinary, "cd", false) + frame(Opcode::kPing, "?") +
                             frame(Opcode::kContinuation, "e", false) +
                             frame(Opcode::kPong, "unasked") + frame(Opcode::kContinuation, "f");
    co_await peer.stream->write(rest);
    EXPECT_EQ(co_await read_exactly(client, 6), "abcdef");
    const auto pong = co_await peer.frame();
    EXPECT_EQ(pong.first.opcode, Opcode::kPong);
    EXPECT_EQ(pong.second, "?");

    // Larger than a frame of ours, both ways.
    std::string large(90'000, '\0');
    for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 7);
    TaskScope scope(co_await asio::this_coro::executor);
    scope.spawn("write", client.write(large));
    std::string got;
    while (got.size() < large.size()) got += (co_await peer.frame()).second;
    EXPECT_TRUE(got == large);
    co_await scope.join();
    const std::string wire = frame(Opcode::kBinary, large);
    scope.spawn("back", peer.stream->write(wire));
    const std::string back = co_await read_exactly(client, large.size());
    EXPECT_TRUE(back == large);
    co_await scope.join();
  };
  with_pair(body, first);
}

TEST(WebSocket, ClosesProperlyFromBothSides) {
  with_pair([](Stream& client, Peer& peer) -> Task<void> {
    const std::string goodbye = frame(Opcode::kClose, std::string("\x03\xe8", 2) + "bye");
    co_await peer.stream->write(goodbye);
    char byte;
    EXPECT_EQ(co_await client.read_some(&byte, 1), 0u);
    EXPECT_EQ(co_await client.read_some(&byte, 1), 0u);
    const auto echo = co_await peer.frame();
    EXPECT_EQ(echo.first.opcode, Opcode::kClose);
    EXPECT_EQ(echo.second, std::string("\x03\xe8", 2));
    EXPECT_EQ(co_await code_of_task(client.write("late")), Code::kUnavailable);
  });
  with_pair([](Stream& client, Peer& peer) -> Task<void> {
    co_await client.shutdown();
    const auto goodbye = co_await peer.frame();
    EXPECT_EQ(goodbye.first.opcode, Opcode::kClose);
    EXPECT_EQ(goodbye.second, std::string("\x03\xe8", 2));
    EXPECT_EQ(co_await code_of_task(peer.more()), Code::kUnavailable);
  });
}

TEST(WebSocket, EndsWithTheReasonForWhatIsForbidden) {
  struct Case {
    const char* name;
    std::string wire;
    Code code;
    std::string close_code;
  };
  FrameHeader masked{true, Opcode::kBinary, 1, 7};
  std::string masked_wire;
  websocket::put_header(masked_wire, masked);
  const Case cases[] = {
      {"masked by the server", masked_wire + "x", Code::kProtocol, "\x03\xea"},
      {"text", frame(Opcode::kText, "hello"), Code::kUnsupported, "\x03\xeb"},
      {"continuation of nothing", frame(Opcode::kContinuation, "x"), Code::kProtocol, "\x03\xea"},
      {"message inside a message", frame(Opcode::kBinary, "", false) + frame(Opcode::kBinary, "x"),
       Code::kProtocol, "\x03\xea"},
      {"too large", frame(Opcode::kBinary, std::string(100'001, 'x')).substr(0, 20),
       Code::kTooLarge, "\x03\xf1"},
      {"too large in fragments",
       frame(Opcode::kBinary, "", false) +
           frame(Opcode::kContinuation, std::string(100'001, 'x')).substr(0, 20),
       Code::kTooLarge, "\x03\xf1"},
      {"close of one byte", frame(Opcode::kClose, "x"), Code::kProtocol, "\x03\xea"},
      {"close code 1005", frame(Opcode::kClose, "\x03\xed"), Code::kProtocol, "\x03\xea"},
      {"the server's own fault", frame(Opcode::kClose, "\x03\xf3"), Code::kUnavailable, "\x03\xf3"},
  };
  for (const Case& item : cases) {
    SCOPED_TRACE(item.name);
    with_pair([&](Stream& client, Peer& peer) -> Task<void> {
      co_await peer.stream->write(item.wire);
      EXPECT_EQ(co_await code_of_task(read_one(client)), item.code);
      const auto goodbye = co_await peer.frame();
      EXPECT_EQ(goodbye.first.opcode, Opcode::kClose);
      EXPECT_EQ(goodbye.second, item.close_code);
    });
  }
}

TEST(WebSocket, TellsATruncatedStreamFromItsEnd) {
  const std::string whole = frame(Opcode::kBinary, "abcdef");
  for (const std::size_t cut : {0ul, 1ul, 4ul}) {
    SCOPED_TRACE(cut);
    with_pair([&](Stream& client, Peer& peer) -> Task<void> {
      const std::string part = whole.substr(0, cut);
      if (cut > 0) co_await peer.stream->write(part);
      co_await peer.stream->shutdown();
      if (cut > 2) EXPECT_EQ(co_await read_exactly(client, cut - 2), "ab");
      EXPECT_EQ(co_await code_of_task(read_one(client)), Code::kUnavailable);
    });
  }
}

TEST(WebSocket, EndsWaitingByItsDeadline) {
  with_pair([](Stream& client, Peer&) -> Task<void> {
    client.expires_after(Duration(50));
    EXPECT_EQ(co_await code_of_task(read_one(client)), Code::kTimeout);
  });
}

TEST(WebSocket, RefusesAHandshakeThatIsNotOne) {
  const auto without = [](std::string text, const std::string& line) {
    const std::size_t at = text.find(line);
    return text.erase(at, text.find("\r\n", at) + 2 - at);
  };
  using Answer = std::function<std::string(const std::string&)>;
  const std::pair<Answer, Code> cases[] = {
      {[](auto&) { return "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"; },
       Code::kForbidden},
      {[](auto&) { return "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"; },
       Code::kUnavailable},
      {[](auto&) { return "HTTP/1.1 502 Bad Gateway\r\n\r\n"; }, Code::kUnavailable},
      {[](auto&) { return "nonsense\r\n\r\n"; }, Code::kProtocol},
      {[](auto&) { return "HTTP/1.1 101 X\r\nX: " + std::string(40'000, 'x') + "\r\n\r\n"; },
       Code::kTooLarge},
      {[&](auto& r) { return without(answer_to(r), "Upgrade: "); }, Code::kProtocol},
      {[&](auto& r) { return without(answer_to(r), "Connection: "); }, Code::kProtocol},
      {[&](auto& r) { return without(answer_to(r), "Sec-WebSocket-Accept: "); }, Code::kProtocol},
      {[&](auto&) { return answer_to("Sec-WebSocket-Key: another\r\n"); }, Code::kProtocol},
      {[&](auto& r) { return answer_to(r, "Sec-WebSocket-Protocol: chat\r\n"); }, Code::kProtocol},
      {[&](auto& r) { return answer_to(r, "X: y\r\n"); }, Code::kProtocol},
      {[&](auto& r) {
         return answer_to(r,
                          "Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Extensions: "
                          "permessage-deflate\r\n");
       },
       Code::kProtocol},
      {[](auto&) { return "HTTP/1.1 101 Swi"; }, Code::kUnavailable},
  };
  int number = 0;
  for (const auto& [make_answer, wanted] : cases) {
    SCOPED_TRACE(number++);
    run_task([&]() -> Task<void> {
      const Executor executor = co_await asio::this_coro::executor;
      Server server(executor);
      Code code = Code::kInternal;
      const auto dial = [&]() -> Task<void> {
        const auto attempt = [&]() -> Task<void> { co_await server.dial(); };
        code = co_await code_of_task(attempt());
      };
      TaskScope scope(executor);
      scope.spawn("dial", dial());
      Peer peer{co_await server.listener->accept(), ""};
      const std::string request = co_await peer.request();
      const std::string text = make_answer(request);
      co_await peer.stream->write(text);
      co_await peer.stream->shutdown();
      co_await scope.join();
      EXPECT_EQ(code, wanted);
    });
  }
}

}  // namespace
}  // namespace flock::net

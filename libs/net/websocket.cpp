// SPDX-License-Identifier: Apache-2.0
// A client of our own rather than Beast's: Beast's websocket wants an asynchronous stream with
// completion tokens under it, and ours is erased behind coroutines.
#include "net/websocket.h"

#include <openssl/sha.h>

#include <algorithm>
#include <cstring>

#include "async/event.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/random.h"
#include "net/http_parser.h"

namespace flock::net {
namespace websocket {
namespace {

Error broken(const char* what) { return Error(Code::kProtocol, std::string("WebSocket: ") + what); }

bool known(unsigned opcode) { return opcode <= 2 || (opcode >= 8 && opcode <= 10); }

}  // namespace

std::optional<FrameHeader> parse_header(std::string_view& input) {
  if (input.size() < 2) return std::nullopt;
  const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(input[at]); };
  FrameHeader header;
  header.final = byte(0) & 0x80;
  if (byte(0) & 0x70) throw broken("a reserved bit is set");
  if (!known(byte(0) & 15)) throw broken("unknown opcode");
  header.opcode = static_cast<Opcode>(byte(0) & 15);
  header.length = byte(1) & 0x7f;
  if ((byte(0) & 8) && (!header.final || header.length > 125))
    throw broken("a control frame is fragmented or too long");

  std::size_t used = 2;
  if (header.length >= 126) {
    const std::size_t count = header.length == 126 ? 2 : 8;
    if (input.size() < used + count) return std::nullopt;
    header.length = 0;
    for (std::size_t i = 0; i < count; ++i) header.length = header.length << 8 | byte(used++);
    if (header.length < (count == 2 ? 126u : 65536u)) throw broken("a length is not minimal");
    if (header.length >> 63) throw broken("a length has its highest bit set");
  }
  if (byte(1) & 0x80) {
    if (input.size() < used + 4) return std::nullopt;
    std::uint32_t key = 0;
    std::memcpy(&key, input.data() + used, 4);
    header.mask = key;
    used += 4;
  }
  input.remove_prefix(used);
  return header;
}

void put_header(std::string& out, const FrameHeader& header) {
  const unsigned mask_bit = header.mask ? 0x80 : 0;
  out += static_cast<char>((header.final ? 0x80 : 0) | static_cast<unsigned>(header.opcode));
  const int count = header.length < 126 ? 0 : header.length < 65536 ? 2 : 8;
  const unsigned short_length =
      count == 0 ? static_cast<unsigned>(header.length) : (count == 2 ? 126 : 127);
  out += static_cast<char>(mask_bit | short_length);
  for (int shift = (count - 1) * 8; shift >= 0; shift -= 8)
    out += static_cast<char>(header.length >> shift);
  if (header.mask) out.append(reinterpret_cast<const char*>(&*header.mask), 4);
}

void put_masked(std::string& out, std::string_view data, std::uint32_t key) {
  const std::size_t start = out.size();
  out += data;
  char bytes[4];
  std::memcpy(bytes, &key, 4);
  char* at = out.data() + start;
  for (std::size_t i = 0; i < data.size(); ++i) at[i] ^= bytes[i & 3];
}

std::string accept_key(const std::string& key) {
  const std::string text = key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  unsigned char digest[SHA_DIGEST_LENGTH];
  SHA1(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  return to_base64({reinterpret_cast<const char*>(digest), sizeof digest});
}

}  // namespace websocket

namespace {

using websocket::FrameHeader;
using websocket::Opcode;

constexpr std::size_t kReadBlock = 16 * 1024;
constexpr std::size_t kFrameBytes = 64 * 1024;  // of outgoing frames: bounds the masked copy
// Status codes of a close frame (7.4.1).
constexpr unsigned kNormal = 1000, kGoingAway = 1001, kProtocolError = 1002, kUnsupported = 1003,
                   kMessageTooBig = 1009;

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return lower(x) == lower(y); });
}

bool list_has(std::optional<std::string_view> list, std::string_view wanted) {
  for (std::string_view rest = list.value_or(""); !rest.empty();) {
    const std::size_t comma = rest.find(',');
    std::string_view item = rest.substr(0, comma);
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
    while (item.starts_with(' ') || item.starts_with('\t')) item.remove_prefix(1);
    while (item.ends_with(' ') || item.ends_with('\t')) item.remove_suffix(1);
    if (equals_ignoring_case(item, wanted)) return true;
  }
  return false;
}

// The codes that may stand in a close frame (7.4).
bool valid_close_code(unsigned code) {
  return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
         (code >= 3000 && code <= 4999);
}

class WebSocketStream final : public Stream {
 public:
  WebSocketStream(Executor executor, StreamPtr lower, InputBuffer input, std::size_t message_bytes)
      : lower_(std::move(lower)),
        input_(std::move(input)),
        message_bytes_(message_bytes),
        written_(std::move(executor)) {}

  Task<std::size_t> read_some(char* data, std::size_t size) override {
    while (left_ == 0) {
      if (ended_) co_return 0;
      co_await next_frame();
    }
    if (input_.view().empty()) co_await fill("in the middle of a message");
    const std::string_view have = input_.view();
    const std::size_t got = std::min({size, have.size(), static_cast<std::size_t>(left_)});
    std::memcpy(data, have.data(), got);
    input_.consume(got);
    left_ -= got;
    co_return got;
  }

  Task<void> write(std::string_view data) override {
    while (!data.empty()) {
      const std::string_view part = data.substr(0, kFrameBytes);
      data.remove_prefix(part.size());
      co_await send(Opcode::kBinary, part);
    }
  }

  Task<void> shutdown() override {
    lower_->expires_after(Duration(1000));
    try {
      co_await send_close(kNormal);
      co_await lower_->shutdown();
    } catch (const Error&) {  // best effort
    }
  }

  void close() noexcept override { lower_->close(); }
  void expires_after(Duration limit) override { lower_->expires_after(limit); }
  std::string peer() const override { return lower_->peer(); }

 private:
  Task<void> next_frame() {
    unsigned fault = 0;
    try {
      const FrameHeader header = co_await read_header();
      if (static_cast<unsigned>(header.opcode) >= 8) {
        co_await control(header);
      } else {
        start_data(header);
      }
      co_return;
    } catch (const Error& error) {
      failure_ = error;
      if (error.code() == Code::kProtocol) fault = kProtocolError;
      if (error.code() == Code::kUnsupported) fault = kUnsupported;
      if (error.code() == Code::kTooLarge) fault = kMessageTooBig;
    }
    if (fault != 0) {  // tells the server why, best effort
      try {
        co_await send_close(fault);
      } catch (const Error&) {
      }
    }
    throw Error(*failure_);
  }

  Task<FrameHeader> read_header() {
    for (;;) {
      std::string_view input = input_.view();
      const std::size_t before = input.size();
      if (const auto header = websocket::parse_header(input)) {
        input_.consume(before - input.size());
        if (header->mask) throw broken("a server must not mask (5.1)");
        co_return *header;
      }
      co_await fill("without saying goodbye");
    }
  }

  void start_data(const FrameHeader& header) {
    if (header.opcode == Opcode::kText)
      throw Error(Code::kUnsupported, "WebSocket: text where bytes were expected")
          .with("peer", peer());
    if ((header.opcode == Opcode::kContinuation) != in_message_)
      throw broken("a fragment is out of place (5.4)");
    if (!in_message_) message_so_far_ = 0;
    if (header.length > message_bytes_ - message_so_far_) {
      throw Error(Code::kTooLarge, "WebSocket: a message is too large")
          .with("peer", peer())
          .with("limit", std::to_string(message_bytes_));
    }
    message_so_far_ += header.length;
    in_message_ = !header.final;
    left_ = header.length;
  }

  Task<void> control(const FrameHeader& header) {
    while (input_.view().size() < header.length) co_await fill("in the middle of a frame");
    const std::string body(input_.view().substr(0, header.length));
    input_.consume(header.length);
    if (header.opcode == Opcode::kPing) co_await send(Opcode::kPong, body);
    if (header.opcode == Opcode::kClose) co_await closed(body);
  }

  Task<void> closed(std::string body) {
    unsigned code = kNormal;
    if (body.size() == 1) throw broken("a close frame of one byte");
    if (body.size() >= 2) {
      code = static_cast<unsigned char>(body[0]) * 256u + static_cast<unsigned char>(body[1]);
      if (!valid_close_code(code)) throw broken("a close code that must not be sent (7.4)");
    }
    ended_ = true;
    try {
      co_await send_close(code);
    } catch (const Error&) {  // gone already
    }
    if (code != kNormal && code != kGoingAway) {
      throw Error(Code::kUnavailable, "WebSocket: the server closed the connection")
          .with("peer", peer())
          .with("code", std::to_string(code))
          .with("reason", body.substr(2));
    }
  }

  Task<void> send_close(unsigned code) {
    if (close_sent_) co_return;
    const char body[2] = {static_cast<char>(code >> 8), static_cast<char>(code)};
    co_await send(Opcode::kClose, {body, 2});
  }

  // A writer and the reader, who answers pings, may both be here: the second waits.
  Task<void> send(Opcode opcode, std::string_view data) {
    while (writing_) co_await written_.wait();
    if (close_sent_) {
      throw Error(Code::kUnavailable, "WebSocket: the connection is closing").with("peer", peer());
    }
    close_sent_ = opcode == Opcode::kClose;
    writing_ = true;
    buffer_.clear();
    const FrameHeader header{true, opcode, data.size(), next_key()};
    websocket::put_header(buffer_, header);
    websocket::put_masked(buffer_, data, *header.mask);
    std::exception_ptr failure;
    try {
      co_await lower_->write(buffer_);
    } catch (...) {
      failure = std::current_exception();
    }
    writing_ = false;
    written_.set();
    written_.reset();
    if (failure) std::rethrow_exception(failure);
  }

  // Masks must not be guessed by what we carry (10.3); one system call serves many frames.
  std::uint32_t next_key() {
    if (keys_.size() < 4) keys_ = random_bytes(256);
    std::uint32_t key = 0;
    std::memcpy(&key, keys_.data() + keys_.size() - 4, 4);
    keys_.resize(keys_.size() - 4);
    return key;
  }

  Task<void> fill(const char* when) {
    if (co_await input_.fill(*lower_)) co_return;
    throw Error(Code::kUnavailable, std::string("WebSocket: the peer went away ") + when)
        .with("peer", peer());
  }

  Error broken(const char* what) const {
    return Error(Code::kProtocol, std::string("WebSocket: ") + what).with("peer", peer());
  }

  StreamPtr lower_;
  InputBuffer input_;
  std::size_t message_bytes_, message_so_far_ = 0;
  std::uint64_t left_ = 0;  // of the frame that is being read
  bool in_message_ = false, ended_ = false, close_sent_ = false, writing_ = false;
  std::optional<Error> failure_;
  std::string buffer_, keys_;
  Event written_;
};

std::string request_of(const WebSocketOptions& options, const std::string& key) {
  const std::string host =
      options.host.find(':') == std::string::npos ? options.host : "[" + options.host + "]";
  std::string text = "GET " + options.path + " HTTP/1.1\r\nHost: " + host +
                     (options.port.empty() ? "" : ":" + options.port) +
                     "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " + key +
                     "\r\nSec-WebSocket-Version: 13\r\n";
  if (!options.subprotocol.empty())
    text += "Sec-WebSocket-Protocol: " + options.subprotocol + "\r\n";
  for (const auto& [name, value] : options.headers.items()) text += name + ": " + value + "\r\n";
  const std::string_view line_end = "\r\n";
  const auto breaks = [&](const std::string& value) {
    return value.find_first_of(line_end) != std::string::npos;
  };
  bool bad = breaks(options.path) || breaks(options.host) || breaks(options.subprotocol);
  for (const auto& [name, value] : options.headers.items()) bad |= breaks(name) || breaks(value);
  if (bad) throw Error(Code::kInvalidArgument, "a header holds a line break");
  return text + "\r\n";
}

void check_answer(const Response& answer, const WebSocketOptions& options, const std::string& key) {
  const auto fail = [](Code code, const std::string& what) {
    return Error(code, "WebSocket: " + what);
  };
  if (answer.status == 401 || answer.status == 403)
    throw fail(Code::kForbidden, "the server refused with " + std::to_string(answer.status));
  if (answer.status != 101)
    throw fail(Code::kUnavailable, "the server answered " + std::to_string(answer.status));
  if (!list_has(answer.headers.get("Upgrade"), "websocket") ||
      !list_has(answer.headers.get("Connection"), "upgrade"))
    throw fail(Code::kProtocol, "the server did not upgrade the connection");
  if (answer.headers.get("Sec-WebSocket-Accept").value_or("") != websocket::accept_key(key))
    throw fail(Code::kProtocol, "the server's Sec-WebSocket-Accept is wrong");
  if (answer.headers.get("Sec-WebSocket-Extensions"))
    throw fail(Code::kProtocol, "the server chose an extension that was not offered");
  if (answer.headers.get("Sec-WebSocket-Protocol").value_or("") != options.subprotocol)
    throw fail(Code::kProtocol, "the server does not speak the subprotocol " + options.subprotocol);
}

}  // namespace

Task<StreamPtr> websocket_client(StreamPtr lower, WebSocketOptions options) {
  const std::string key = to_base64(random_bytes(16));
  const std::string request = request_of(options, key);
  co_await lower->write(request);
  InputBuffer input;
  const auto parser = MessageParser::response({kReadBlock, 0}, true);
  while (!parser->header_done()) {
    if (input.view().empty() && !co_await input.fill(*lower)) {
      throw Error(Code::kUnavailable, "WebSocket: the server closed the connection")
          .with("peer", lower->peer());
    }
    const std::size_t used = parser->put(input.view());
    input.consume(used);
    if (used == 0 && !parser->header_done() && !co_await input.fill(*lower)) {
      throw Error(Code::kUnavailable, "WebSocket: the server closed the connection")
          .with("peer", lower->peer());
    }
  }
  check_answer(parser->take_response(), options, key);
  const Executor executor = co_await asio::this_coro::executor;
  co_return std::make_unique<WebSocketStream>(executor, std::move(lower), std::move(input),
                                              options.message_bytes);
}

}  // namespace flock::net

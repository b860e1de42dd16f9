// SPDX-License-Identifier: Apache-2.0
// WebSocket (RFC 6455) as a client, carrying a byte stream: what MQTT needs to leave networks that
// let only HTTPS out. Numbers in comments are sections of that RFC.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "net/http.h"
#include "net/stream.h"

namespace flock::net {

struct WebSocketOptions {
  std::string host, port;                // of the URL, for the Host field
  std::string path = "/";                // with query
  std::string subprotocol;               // asked for; the server must choose it. Empty: none
  Headers headers;                       // more request fields, e.g. Authorization
  std::size_t message_bytes = 16 << 20;  // of one incoming message: kTooLarge
};

// Shakes hands over `lower` (TCP, or TLS for wss) and gives a Stream whose bytes travel in binary
// messages; where a message begins and ends says nothing (MQTT 5, 6.0). Pings are answered while
// somebody reads. The end after a proper close is read as 0, one without as kUnavailable. Throws
// kForbidden (401, 403), kUnavailable (any other answer), kProtocol. The caller limits the time,
// with with_deadline() or lower->expires_after().
Task<StreamPtr> websocket_client(StreamPtr lower, WebSocketOptions options);

// The rest is the protocol without I/O, for the stream above and for tests.
namespace websocket {

enum class Opcode : std::uint8_t {
  kContinuation = 0,
  kText = 1,
  kBinary = 2,
  kClose = 8,
  kPing = 9,
  kPong = 10,
};

struct FrameHeader {
  bool final = true;
  Opcode opcode = Opcode::kBinary;
  std::uint64_t length = 0;
  std::optional<std::uint32_t> mask;  // the key in wire order, as memcpy reads it
};

// Takes a header off the front of `input`, or nothing while it is incomplete. Throws kProtocol for
// what the RFC forbids in any frame (5.2, 5.5).
std::optional<FrameHeader> parse_header(std::string_view& input);
void put_header(std::string& out, const FrameHeader& header);
// Appends `data` XORed with the key (5.3).
void put_masked(std::string& out, std::string_view data, std::uint32_t key);
// Sec-WebSocket-Accept of a Sec-WebSocket-Key (4.2.2).
std::string accept_key(const std::string& key);

}  // namespace websocket
}  // namespace flock::net

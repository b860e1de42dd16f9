// SPDX-License-Identifier: Apache-2.0
// MQTT 5 packets as bytes (OASIS mqtt-v5.0, section 2 and 3): no I/O, no state. Numbers in comments
// are sections of that text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "mqtt/bus.h"

namespace flock::mqtt {

struct Connect {
  std::string client_id, username, password;
  bool clean_start = false;
  std::uint16_t keep_alive_seconds = 30;
  std::uint32_t session_expiry_seconds = 0;
  std::uint16_t receive_maximum = 65535;
  std::uint32_t maximum_packet = 0;  // 0: not sent
  std::uint16_t topic_alias_maximum = 0;
  const Message* will = nullptr;
  std::uint32_t will_delay_seconds = 0;
};
struct ConnAck {
  bool session_present = false;
  std::uint8_t reason = 0;
  std::string reason_text;
  std::uint16_t receive_maximum = 65535;
  std::uint8_t maximum_qos = 2;
  std::uint32_t maximum_packet = 0;  // 0: no limit
  std::uint16_t topic_alias_maximum = 0;
  std::optional<std::uint16_t> server_keep_alive;
  bool subscription_ids = true;
};
struct Publish {
  Message message;
  std::uint16_t packet_id = 0;  // QoS 1
  bool duplicate = false;
  std::uint16_t topic_alias = 0;
  std::vector<std::uint32_t> subscription_ids;
};
// What a PUBLISH says beside its message.
struct PublishHeader {
  std::uint16_t packet_id = 0;  // QoS 1
  bool duplicate = false;
  std::uint16_t topic_alias = 0;
  bool omit_topic = false;         // the peer knows the alias
  std::optional<Duration> expiry;  // instead of the message's own
};
struct PubAck {
  std::uint16_t packet_id = 0;
  std::uint8_t reason = 0;
};
struct SubAck {
  std::uint16_t packet_id = 0;
  std::vector<std::uint8_t> reasons;
};
struct UnsubAck {
  std::uint16_t packet_id = 0;
  std::vector<std::uint8_t> reasons;
};
struct PingResp {};
struct Disconnect {
  std::uint8_t reason = 0;
  std::string reason_text;
};
using Incoming = std::variant<ConnAck, Publish, PubAck, SubAck, UnsubAck, PingResp, Disconnect>;

// Each appends one packet to `out`. Throws Error{kInvalidArgument} for text that the protocol
// cannot carry.
void encode(std::string& out, const Connect& packet);
void encode(std::string& out, const Publish& packet);
void encode(std::string& out, const Message& message, const PublishHeader& header);
void encode(std::string& out, const PubAck& packet);
// Retain handling (MQTT 5, 3.8.3.1) of a subscription that wants retained messages.
enum class Retained : std::uint8_t { kAlways = 0, kWhenNew = 1 };
// `subscription_id` 0: none.
void encode_subscribe(std::string& out, std::uint16_t packet_id, const Subscription& subscription,
                      std::uint32_t subscription_id = 0, Retained retained = Retained::kAlways);
void encode_unsubscribe(std::string& out, std::uint16_t packet_id, std::string_view filter);
void encode_ping(std::string& out);
void encode_disconnect(std::string& out, std::uint8_t reason);

// Takes one packet off the front of `input`, or nothing while it is incomplete. Throws
// Error{kProtocol} for anything that the specification forbids a server to send and
// Error{kTooLarge} past `limit` bytes.
std::optional<Incoming> decode(std::string_view& input, std::size_t limit);

// "not authorized" for 0x87, ... (2.4)
std::string_view reason_name(std::uint8_t reason) noexcept;

}  // namespace flock::mqtt

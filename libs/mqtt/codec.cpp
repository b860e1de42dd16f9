// SPDX-License-Identifier: Apache-2.0
#include "mqtt/codec.h"

#include "base/error.h"

namespace flock::mqtt {
namespace {

enum Property : std::uint8_t {
  kPayloadFormat = 1,
  kMessageExpiry = 2,
  kContentType = 3,
  kResponseTopic = 8,
  kCorrelationData = 9,
  kSubscriptionId = 11,
  kSessionExpiry = 17,
  kAssignedClientId = 18,
  kServerKeepAlive = 19,
  kAuthMethod = 21,
  kAuthData = 22,
  kWillDelay = 24,
  kResponseInformation = 26,
  kServerReference = 28,
  kReasonString = 31,
  kReceiveMaximum = 33,
  kTopicAliasMaximum = 34,
  kTopicAlias = 35,
  kMaximumQos = 36,
  kRetainAvailable = 37,
  kUserProperty = 38,
  kMaximumPacket = 39,
  kWildcardAvailable = 40,
  kSubscriptionIdAvailable = 41,
  kSharedAvailable = 42,
};

Error malformed(const char* what) {
  return Error(Code::kProtocol, std::string("malformed MQTT packet: ") + what);
}

// --- Writing
// --------------------------------------------------------------------------------------

void put8(std::string& out, unsigned value) { out += static_cast<char>(value); }
void put16(std::string& out, unsigned value) {
  put8(out, value >> 8);
  put8(out, value);
}
void put32(std::string& out, std::uint32_t value) {
  put16(out, value >> 16);
  put16(out, value);
}
// Variable byte integer (1.5.5).
void put_length(std::string& out, std::size_t value) {
  if (value > 268'435'455) throw Error(Code::kTooLarge, "an MQTT packet holds at most 256 MiB");
  do {
    const unsigned digit = value & 127;
    value >>= 7;
    put8(out, value > 0 ? digit | 128 : digit);
  } while (value > 0);
}
void put_binary(std::string& out, std::string_view data) {
  if (data.size() > 65535)
    throw Error(Code::kInvalidArgument, "an MQTT string holds at most 65,535 bytes");
  put16(out, static_cast<unsigned>(data.size()));
  out += data;
}
void put_text(std::string& out, std::string_view text) {
  if (text.find('\0') != std::string_view::npos) {
    throw Error(Code::kInvalidArgument, "an MQTT string must not hold a NUL character");
  }
  put_binary(out, text);
}

void put_packet(std::string& out, unsigned header, std::string_view body) {
  put8(out, header);
  put_length(out, body.size());
  out += body;
}

// What PUBLISH and a will share.
void put_message_properties(std::string& out, const Message& message,
                            std::optional<Duration> expiry) {
  if (expiry) {
    put8(out, kMessageExpiry);
    // Up to the next second: a message must not expire before its time.
    put32(out, static_cast<std::uint32_t>((expiry->count() + 999) / 1000));
  }
  if (!message.content_type.empty()) {
    put8(out, kContentType);
    put_text(out, message.content_type);
  }
  if (!message.response_topic.empty()) {
    put8(out, kResponseTopic);
    put_text(out, message.response_topic);
  }
  if (!message.correlation_data.empty()) {
    put8(out, kCorrelationData);
    put_binary(out, message.correlation_data);
  }
  for (const auto& [key, value] : message.user_properties) {
    put8(out, kUserProperty);
    put_text(out, key);
    put_text(out, value);
  }
}

void put_properties(std::string& out, std::string_view properties) {
  put_length(out, properties.size());
  out += properties;
}

// --- Reading
// --------------------------------------------------------------------------------------

class Reader {
 public:
  explicit Reader(std::string_view data) : data_(data) {}
  bool empty() const { return data_.empty(); }
  std::string_view rest() {
    const std::string_view all = data_;
    data_ = {};
    return all;
  }
  std::string_view take(std::size_t count) {
    if (count > data_.size()) throw malformed("it ends too early");
    const std::string_view part = data_.substr(0, count);
    data_.remove_prefix(count);
    return part;
  }
  unsigned u8() { return static_cast<unsigned char>(take(1)[0]); }
  unsigned u16() {
    const unsigned high = u8();
    return high << 8 | u8();
  }
  std::uint32_t u32() {
    const std::uint32_t high = u16();
    return high << 16 | u16();
  }
  std::uint32_t length() {
    std::uint32_t value = 0;
    for (int shift = 0; shift < 28; shift += 7) {
      const unsigned byte = u8();
      value |= (byte & 127) << shift;
      if (byte < 128) return value;
    }
    throw malformed("a length has too many bytes");
  }
  std::string_view binary() { return take(u16()); }
  std::string_view text() {
    const std::string_view value = binary();
    if (value.find('\0') != std::string_view::npos)
      throw malformed("a string holds a NUL character");
    return value;
  }

 private:
  std::string_view data_;
};

// Every property that a server may send; each at most once but user properties and subscription
// identifiers (2.2.2.2).
struct Properties {
  std::uint64_t seen = 0;
  std::string reason_text;
  std::uint32_t message_expiry = 0, maximum_packet = 0;
  unsigned receive_maximum = 65535, alias_maximum = 0, alias = 0, keep_alive = 0, maximum_qos = 2;
  std::string content_type, response_topic, correlation_data;
  std::vector<std::pair<std::string, std::string>> user;
  std::vector<std::uint32_t> subscription_ids;
  bool subscription_ids_available = true;

  bool has(Property id) const { return seen >> id & 1; }

  void read(Reader& packet) {
    Reader in(packet.take(packet.length()));
    while (!in.empty()) {
      const std::uint32_t id = in.length();
      if (id > kSharedAvailable) throw malformed("unknown property");
      if (id != kUserProperty && id != kSubscriptionId && has(static_cast<Property>(id))) {
        throw malformed("a property stands twice");
      }
      seen |= std::uint64_t{1} << id;
      read_one(static_cast<Property>(id), in);
    }
  }

 private:
  void read_one(Property id, Reader& in) {
    switch (id) {
      case kPayloadFormat:
        in.u8();
        return;
      case kMessageExpiry:
        message_expiry = in.u32();
        return;
      case kContentType:
        content_type = in.text();
        return;
      case kResponseTopic:
        response_topic = in.text();
        return;
      case kCorrelationData:
        correlation_data = in.binary();
        return;
      case kSubscriptionId:
        subscription_ids.push_back(in.length());
        if (subscription_ids.back() == 0) throw malformed("subscription identifier is 0");
        return;
      case kSessionExpiry:
        in.u32();
        return;
      case kAssignedClientId:
        in.text();
        return;
      case kServerKeepAlive:
        keep_alive = in.u16();
        return;
      case kAuthMethod:
        in.text();
        return;
      case kAuthData:
        in.binary();
        return;
      case kResponseInformation:
        in.text();
        return;
      case kServerReference:
        in.text();
        return;
      case kReasonString:
        reason_text = in.text();
        return;
      case kReceiveMaximum:
        receive_maximum = in.u16();
        if (receive_maximum == 0) throw malformed("receive maximum is 0");
        return;
      case kTopicAliasMaximum:
        alias_maximum = in.u16();
        return;
      case kTopicAlias:
        alias = in.u16();
        if (alias == 0) throw malformed("topic alias is 0");
        return;
      case kMaximumQos:
        maximum_qos = in.u8();
        return;
      case kUserProperty: {
        const std::string_view key = in.text();
        user.emplace_back(key, in.text());
        return;
      }
      case kMaximumPacket:
        maximum_packet = in.u32();
        return;
      case kSubscriptionIdAvailable:
        subscription_ids_available = in.u8() != 0;
        return;
      case kRetainAvailable:
      case kWildcardAvailable:
      case kSharedAvailable:
        in.u8();
        return;
      case kWillDelay:
        break;
    }
    throw malformed("unknown property");
  }
};

ConnAck read_connack(Reader& in) {
  ConnAck packet;
  packet.session_present = in.u8() & 1;
  packet.reason = static_cast<std::uint8_t>(in.u8());
  if (in.empty()) return packet;
  Properties properties;
  properties.read(in);
  packet.reason_text = properties.reason_text;
  packet.receive_maximum = static_cast<std::uint16_t>(properties.receive_maximum);
  packet.maximum_qos = static_cast<std::uint8_t>(properties.maximum_qos);
  packet.maximum_packet = properties.maximum_packet;
  packet.topic_alias_maximum = static_cast<std::uint16_t>(properties.alias_maximum);
  packet.subscription_ids = properties.subscription_ids_available;
  if (properties.has(kServerKeepAlive))
    packet.server_keep_alive = static_cast<std::uint16_t>(properties.keep_alive);
  return packet;
}

Publish read_publish(unsigned flags, Reader& in) {
  Publish packet;
  const unsigned qos = flags >> 1 & 3;
  if (qos > 1) throw malformed("QoS 2 was not asked for");
  packet.duplicate = flags & 8;
  packet.message.retain = flags & 1;
  packet.message.qos = static_cast<Qos>(qos);
  packet.message.topic = in.text();
  if (packet.message.topic.find_first_of("+#") != std::string::npos)
    throw malformed("a wildcard in a topic");
  if (qos == 1) {
    packet.packet_id = static_cast<std::uint16_t>(in.u16());
    if (packet.packet_id == 0) throw malformed("packet identifier 0");
  }
  Properties properties;
  properties.read(in);
  packet.topic_alias = static_cast<std::uint16_t>(properties.alias);
  if (packet.message.topic.empty() && packet.topic_alias == 0)
    throw malformed("neither topic nor alias");
  if (properties.has(kMessageExpiry))
    packet.message.expiry = Duration(std::int64_t{properties.message_expiry} * 1000);
  packet.message.content_type = std::move(properties.content_type);
  packet.message.response_topic = std::move(properties.response_topic);
  packet.message.correlation_data = std::move(properties.correlation_data);
  packet.message.user_properties = std::move(properties.user);
  packet.subscription_ids = std::move(properties.subscription_ids);
  packet.message.payload = in.rest();
  return packet;
}

template <class Ack>
Ack read_list_ack(Reader& in) {
  Ack packet;
  packet.packet_id = static_cast<std::uint16_t>(in.u16());
  Properties properties;
  properties.read(in);
  while (!in.empty()) packet.reasons.push_back(static_cast<std::uint8_t>(in.u8()));
  if (packet.reasons.empty()) throw malformed("an acknowledgement without reasons");
  return packet;
}

Incoming read_packet(unsigned header, Reader& in) {
  switch (header >> 4) {
    case 2:
      return read_connack(in);
    case 3:
      return read_publish(header & 15, in);
    case 4: {
      PubAck packet;
      packet.packet_id = static_cast<std::uint16_t>(in.u16());
      if (!in.empty()) packet.reason = static_cast<std::uint8_t>(in.u8());
      in.rest();
      return packet;
    }
    case 9:
      return read_list_ack<SubAck>(in);
    case 11:
      return read_list_ack<UnsubAck>(in);
    case 13:
      return PingResp();
    case 14: {
      Disconnect packet;
      if (!in.empty()) packet.reason = static_cast<std::uint8_t>(in.u8());
      if (!in.empty()) {
        Properties properties;
        properties.read(in);
        packet.reason_text = properties.reason_text;
      }
      return packet;
    }
    default:
      throw malformed("a server may not send this kind");
  }
}

}  // namespace

void encode(std::string& out, const Connect& packet) {
  std::string body;
  put_text(body, "MQTT");
  put8(body, 5);
  const unsigned will = packet.will == nullptr ? 0u
                                               : 4u | static_cast<unsigned>(packet.will->qos) << 3 |
                                                     (packet.will->retain ? 32u : 0u);
  put8(body, (packet.username.empty() ? 0u : 0x80u) | (packet.password.empty() ? 0u : 0x40u) |
                 will | (packet.clean_start ? 2u : 0u));
  put16(body, packet.keep_alive_seconds);
  std::string properties;
  put8(properties, kSessionExpiry);
  put32(properties, packet.session_expiry_seconds);
  put8(properties, kReceiveMaximum);
  put16(properties, packet.receive_maximum);
  if (packet.maximum_packet > 0) {
    put8(properties, kMaximumPacket);
    put32(properties, packet.maximum_packet);
  }
  if (packet.topic_alias_maximum > 0) {
    put8(properties, kTopicAliasMaximum);
    put16(properties, packet.topic_alias_maximum);
  }
  put_properties(body, properties);
  put_text(body, packet.client_id);
  if (packet.will != nullptr) {
    std::string will_properties;
    put8(will_properties, kWillDelay);
    put32(will_properties, packet.will_delay_seconds);
    put_message_properties(will_properties, *packet.will, packet.will->expiry);
    put_properties(body, will_properties);
    put_text(body, packet.will->topic);
    put_binary(body, packet.will->payload);
  }
  if (!packet.username.empty()) put_text(body, packet.username);
  if (!packet.password.empty()) put_binary(body, packet.password);
  put_packet(out, 0x10, body);
}

void encode(std::string& out, const Publish& packet) {
  encode(out, packet.message,
         {packet.packet_id, packet.duplicate, packet.topic_alias, false, std::nullopt});
}

void encode(std::string& out, const Message& message, const PublishHeader& header) {
  std::string body;
  body.reserve(message.topic.size() + message.payload.size() + 32);
  put_text(body, header.omit_topic ? std::string_view() : std::string_view(message.topic));
  if (message.qos == Qos::kAtLeastOnce) put16(body, header.packet_id);
  std::string properties;
  if (header.topic_alias > 0) {
    put8(properties, kTopicAlias);
    put16(properties, header.topic_alias);
  }
  put_message_properties(properties, message, header.expiry ? header.expiry : message.expiry);
  put_properties(body, properties);
  body += message.payload;
  put_packet(out,
             0x30u | (header.duplicate ? 8u : 0u) | static_cast<unsigned>(message.qos) << 1 |
                 (message.retain ? 1u : 0u),
             body);
}

void encode(std::string& out, const PubAck& packet) {
  put8(out, 0x40);
  if (packet.reason == 0) {
    put8(out, 2);
    put16(out, packet.packet_id);
    return;
  }
  put8(out, 3);
  put16(out, packet.packet_id);
  put8(out, packet.reason);
}

void encode_subscribe(std::string& out, std::uint16_t packet_id, const Subscription& subscription,
                      std::uint32_t subscription_id, Retained retained) {
  std::string body, properties;
  put16(body, packet_id);
  if (subscription_id > 0) {
    put8(properties, kSubscriptionId);
    put_length(properties, subscription_id);
  }
  put_properties(body, properties);
  put_text(body, subscription.filter);
  put8(body, static_cast<unsigned>(subscription.max_qos) |
                 (subscription.retain_as_published ? 8u : 0u) |
                 (subscription.skip_retained ? 2u << 4 : static_cast<unsigned>(retained) << 4));
  put_packet(out, 0x82, body);
}

void encode_unsubscribe(std::string& out, std::uint16_t packet_id, std::string_view filter) {
  std::string body;
  put16(body, packet_id);
  put_length(body, 0);
  put_text(body, filter);
  put_packet(out, 0xa2, body);
}

void encode_ping(std::string& out) { put_packet(out, 0xc0, ""); }

void encode_disconnect(std::string& out, std::uint8_t reason) {
  std::string body;
  if (reason != 0) put8(body, reason);
  put_packet(out, 0xe0, body);
}

std::optional<Incoming> decode(std::string_view& input, std::size_t limit) {
  if (input.size() < 2) return std::nullopt;
  // The length by hand: an incomplete one is no fault.
  std::size_t length = 0, used = 1;
  for (int shift = 0;; shift += 7) {
    if (shift == 28) throw malformed("a length has too many bytes");
    if (used == input.size()) return std::nullopt;
    const unsigned byte = static_cast<unsigned char>(input[used++]);
    length |= std::size_t{byte & 127} << shift;
    if (byte < 128) break;
  }
  if (used + length > limit) {
    throw Error(Code::kTooLarge, "an MQTT packet is too large")
        .with("bytes", std::to_string(used + length))
        .with("limit", std::to_string(limit));
  }
  if (input.size() < used + length) return std::nullopt;
  const unsigned header = static_cast<unsigned char>(input[0]);
  if (header >> 4 != 3 && (header & 15) != 0) throw malformed("reserved flags are set");
  Reader body(input.substr(used, length));
  Incoming packet = read_packet(header, body);
  if (!body.empty()) throw malformed("bytes are left over");
  input.remove_prefix(used + length);
  return packet;
}

std::string_view reason_name(std::uint8_t reason) noexcept {
  switch (reason) {
    case 0x00:
      return "success";
    case 0x04:
      return "disconnect with will";
    case 0x10:
      return "no matching subscribers";
    case 0x80:
      return "unspecified error";
    case 0x81:
      return "malformed packet";
    case 0x82:
      return "protocol error";
    case 0x84:
      return "unsupported protocol version";
    case 0x85:
      return "client identifier not valid";
    case 0x86:
      return "bad user name or password";
    case 0x87:
      return "not authorized";
    case 0x88:
      return "server unavailable";
    case 0x89:
      return "server busy";
    case 0x8b:
      return "server shutting down";
    case 0x8d:
      return "keep alive timeout";
    case 0x8e:
      return "session taken over";
    case 0x90:
      return "topic name invalid";
    case 0x93:
      return "receive maximum exceeded";
    case 0x95:
      return "packet too large";
    case 0x97:
      return "quota exceeded";
    case 0x98:
      return "administrative action";
    case 0x9a:
      return "retain not supported";
    case 0x9b:
      return "QoS not supported";
    case 0x9f:
      return "connection rate exceeded";
    case 0xa0:
      return "maximum connect time";
    default:
      return "refused";
  }
}

}  // namespace flock::mqtt

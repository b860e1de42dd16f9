// SPDX-License-Identifier: Apache-2.0
#include "mqtt/outbox.h"

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace flock::mqtt {
namespace {

// More than this is not put into the connection's buffer at once.
constexpr std::size_t kOutputBytes = 256 * 1024;
constexpr std::uint8_t kPacketTooLarge = 0x95;
// An alias costs three bytes itself.
constexpr std::size_t kShortTopic = 8;

// What the packet will take at most, without encoding it.
std::size_t size_of(const Message& message) {
  std::size_t bytes = message.topic.size() + message.payload.size() + message.content_type.size() +
                      message.response_topic.size() + message.correlation_data.size() + 32;
  for (const auto& [key, value] : message.user_properties) bytes += key.size() + value.size() + 5;
  return bytes;
}

void check(const Message& message) {
  const auto bad = [&](const char* what) {
    return Error(Code::kInvalidArgument, what).with("topic", message.topic.substr(0, 200));
  };
  if (message.topic.empty()) throw bad("a message needs a topic");
  if (message.topic.find_first_of("+#") != std::string::npos)
    throw bad("a message's topic must not hold a wildcard");
  const auto text = [&](const std::string& value) {
    if (value.size() > 65535) throw bad("an MQTT string holds at most 65,535 bytes");
    if (value.find('\0') != std::string::npos)
      throw bad("an MQTT string must not hold a NUL character");
  };
  text(message.topic);
  text(message.content_type);
  text(message.response_topic);
  if (message.correlation_data.size() > 65535)
    throw bad("correlation data holds at most 65,535 bytes");
  for (const auto& [key, value] : message.user_properties) {
    text(key);
    text(value);
  }
}

}  // namespace

std::uint16_t PacketIds::take() noexcept {
  if (count_ == 65535) return 0;
  do {
    if (++last_ == 0) last_ = 1;
  } while (taken_[last_]);
  taken_[last_] = true;
  ++count_;
  return last_;
}

void PacketIds::give(std::uint16_t id) noexcept {
  if (!taken_[id]) return;
  taken_[id] = false;
  --count_;
}

OutgoingPtr Outbox::add(Message message) {
  check(message);
  const std::size_t bytes = size_of(message);
  if (bytes > packet_bytes_ || (server_limit_ > 0 && bytes > server_limit_ + 32)) {
    throw Error(Code::kTooLarge, "the message is too large for the broker")
        .with("topic", message.topic);
  }
  if (used_bytes_ + bytes > queue_bytes_) {
    throw Error(Code::kTooLarge, "too many messages wait for the broker")
        .with("topic", message.topic);
  }
  const auto item = std::make_shared<Outgoing>(executor_, std::move(message));
  item->bytes = bytes;
  if (item->message.expiry)
    item->expires = std::chrono::steady_clock::now() + *item->message.expiry;
  used_bytes_ += bytes;
  waiting_.push_back(item);
  return item;
}

void Outbox::forget(const OutgoingPtr& item) {
  if (item->reason || item->packet_id != 0) return;
  const auto at = std::find(waiting_.begin(), waiting_.end(), item);
  if (at == waiting_.end()) return;
  used_bytes_ -= item->bytes;
  waiting_.erase(at);
}

void Outbox::start(const ConnAck& answer) {
  window_ = answer.receive_maximum;
  server_limit_ = answer.maximum_packet;
  alias_maximum_ = answer.topic_alias_maximum;
  resumed_ = answer.session_present;
  aliases_.clear();
  std::vector<OutgoingPtr> again;
  again.reserve(flight_.size());
  for (auto& [id, item] : flight_) again.push_back(std::move(item));
  flight_.clear();
  std::sort(again.begin(), again.end(),
            [](const OutgoingPtr& a, const OutgoingPtr& b) { return a->order < b->order; });
  waiting_.insert(waiting_.begin(), again.begin(), again.end());
}

void Outbox::pump(SteadyPoint now, std::string& out) {
  while (!waiting_.empty() && out.size() < kOutputBytes) {
    const OutgoingPtr item = waiting_.front();
    const bool fresh = item->packet_id == 0;
    if (fresh && item->expires <= now) {
      item->expired = true;
      waiting_.pop_front();
      settle(item, 0x80);
      continue;
    }
    const bool confirmed = item->message.qos == Qos::kAtLeastOnce;
    if (confirmed) {
      if (flight_.size() >= window_) return;
      if (fresh) item->packet_id = ids_.take();
      if (item->packet_id == 0) return;
    }
    waiting_.pop_front();
    if (!encode_one(*item, now, out)) {
      settle(item, kPacketTooLarge);
    } else if (confirmed) {
      if (fresh) item->order = ++sent_;
      flight_.emplace(item->packet_id, item);
    } else {
      settle(item, 0);
    }
  }
}

// False when the broker does not take packets of this size; it would end the connection.
bool Outbox::encode_one(Outgoing& item, SteadyPoint now, std::string& out) {
  const std::size_t before = out.size();
  PublishHeader header;
  header.packet_id = item.packet_id;
  header.duplicate = resumed_ && item.order > 0;
  bool known = false;
  header.topic_alias = alias_for(item.message.topic, known);
  header.omit_topic = known;
  if (item.message.expiry) {
    // What is left of it; a message that is sent again must not turn into one without expiry.
    const auto left = std::chrono::duration_cast<Duration>(item.expires - now);
    header.expiry = std::max(Duration(1000), left);
  }
  encode(out, item.message, header);
  if (server_limit_ == 0 || out.size() - before <= server_limit_) return true;
  out.resize(before);
  if (header.topic_alias != 0 && !known) aliases_.erase(item.message.topic);
  return false;
}

// The first topics of a connection get the aliases; a device has only a handful.
std::uint16_t Outbox::alias_for(const std::string& topic, bool& known) {
  if (alias_maximum_ == 0 || topic.size() < kShortTopic) return 0;
  if (const auto found = aliases_.find(topic); found != aliases_.end()) {
    known = true;
    return found->second;
  }
  if (aliases_.size() >= alias_maximum_) return 0;
  const auto alias = static_cast<std::uint16_t>(aliases_.size() + 1);
  aliases_.emplace(topic, alias);
  return alias;
}

void Outbox::acknowledge(const PubAck& packet) {
  const auto found = flight_.find(packet.packet_id);
  if (found == flight_.end()) return;  // of an earlier session
  const OutgoingPtr item = std::move(found->second);
  flight_.erase(found);
  settle(item, packet.reason);
}

void Outbox::settle(const OutgoingPtr& item, std::uint8_t reason) {
  if (item->packet_id != 0) ids_.give(item->packet_id);
  used_bytes_ -= item->bytes;
  item->reason = reason;
  item->done.set();
}

OutgoingPtr Outbox::some() const {
  if (!waiting_.empty()) return waiting_.back();
  return flight_.empty() ? nullptr : flight_.begin()->second;
}

}  // namespace flock::mqtt

// SPDX-License-Identifier: Apache-2.0
// What waits to be published, without I/O: the bounded queue, the broker's window (receive
// maximum), topic aliases, and what goes out again after a reconnect (MQTT 5, 3.3.4 and 4.4).
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "async/event.h"
#include "mqtt/codec.h"

namespace flock::mqtt {

// The identifiers that PUBLISH, SUBSCRIBE and UNSUBSCRIBE of one session share (2.2.1).
class PacketIds {
 public:
  // 0 when all 65,535 are taken.
  std::uint16_t take() noexcept;
  void give(std::uint16_t id) noexcept;

 private:
  std::bitset<65536> taken_;
  std::uint16_t last_ = 0;
  std::uint16_t count_ = 0;
};

// One publish() on its way. `reason` is set, and then `done`, when it is over.
struct Outgoing {
  Outgoing(Executor executor, Message m) : message(std::move(m)), done(std::move(executor)) {}
  Message message;
  std::size_t bytes = 0;  // what it counts for in the queue
  SteadyPoint expires = SteadyPoint::max();
  std::uint16_t packet_id = 0;  // 0: never sent
  std::uint64_t order = 0;      // of its first sending
  std::optional<std::uint8_t> reason;
  bool expired = false;
  Event done;
};
using OutgoingPtr = std::shared_ptr<Outgoing>;

class Outbox {
 public:
  Outbox(Executor executor, PacketIds& ids, std::size_t queue_bytes, std::size_t packet_bytes)
      : executor_(std::move(executor)),
        ids_(ids),
        queue_bytes_(queue_bytes),
        packet_bytes_(packet_bytes) {}

  // Throws kTooLarge (one message, or the queue), kInvalidArgument (a topic or a text that MQTT
  // cannot carry: a broker would end the connection for it, again and again).
  OutgoingPtr add(Message message);
  // The caller lost its patience. What was sent stays until the broker answers, for its packet
  // identifier is taken.
  void forget(const OutgoingPtr& item);

  // A connection is up: what was not acknowledged waits again, in its old order.
  void start(const ConnAck& answer);
  // Appends what window and `out` have room for, oldest first. `out` is held short, so that a peer
  // that does not read leaves the messages in the queue, where they count.
  void pump(SteadyPoint now, std::string& out);
  void acknowledge(const PubAck& packet);

  bool empty() const noexcept { return waiting_.empty() && flight_.empty(); }
  // Any one of those that are not over; null when there is none.
  OutgoingPtr some() const;

 private:
  bool encode_one(Outgoing& item, SteadyPoint now, std::string& out);
  std::uint16_t alias_for(const std::string& topic, bool& known);
  void settle(const OutgoingPtr& item, std::uint8_t reason);

  Executor executor_;
  PacketIds& ids_;
  std::size_t queue_bytes_, packet_bytes_, used_bytes_ = 0;
  std::deque<OutgoingPtr> waiting_;
  std::unordered_map<std::uint16_t, OutgoingPtr> flight_;
  std::uint64_t sent_ = 0;
  // Of the present connection:
  unsigned window_ = 65535;
  std::size_t server_limit_ = 0;  // 0: none
  unsigned alias_maximum_ = 0;
  bool resumed_ = false;
  std::unordered_map<std::string, std::uint16_t> aliases_;
};

}  // namespace flock::mqtt

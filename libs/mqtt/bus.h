// SPDX-License-Identifier: Apache-2.0
// The message bus as Flock's programs see it: MQTT 5 semantics without the wire. Implemented by
// mqtt::Client (a broker) and by MemoryBus (tests); both pass bus_contract.h.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "async/task.h"
#include "base/time.h"

namespace flock::mqtt {

enum class Qos : std::uint8_t { kAtMostOnce = 0, kAtLeastOnce = 1 };

struct Message {
  std::string topic;
  std::string payload;
  Qos qos = Qos::kAtLeastOnce;
  bool retain = false;
  // QoS 1: a message that reached no subscriber (reason 0x10) is kUnavailable, not success.
  bool must_be_heard = false;
  std::optional<Duration> expiry;  // message expiry interval, whole seconds on the wire
  std::string content_type, response_topic, correlation_data;
  std::vector<std::pair<std::string, std::string>> user_properties;
};

// One delivered message. QoS 1 is acknowledged (PUBACK) only by ack(): call it when the effect is
// durable. A delivery that is dropped without ack() is sent again by the broker when the session
// resumes. ack() twice, or after the connection it came on was lost, does nothing.
class Delivery {
 public:
  Message message;
  std::uint32_t subscription = 0;
  void ack();
  explicit Delivery(Message m, std::function<void()> acknowledge = {})
      : message(std::move(m)), acknowledge_(std::move(acknowledge)) {}

 private:
  std::function<void()> acknowledge_;
};

struct Subscription {
  std::string filter;  // may be "$share/<group>/<filter>"
  Qos max_qos = Qos::kAtLeastOnce;
  bool retain_as_published = true;
  bool skip_retained = false;  // retain handling 2
};

class Bus {
 public:
  virtual ~Bus() = default;
  // QoS 0: resumes when handed to the connection. QoS 1: resumes after PUBACK, across reconnects.
  // Throws kTooLarge (queue or packet limit), kForbidden (broker refused: not authorized), kTimeout
  // (not acknowledged in the client's publish_time), kUnavailable (the bus was stopped).
  virtual Task<void> publish(Message message) = 0;
  // Kept and repeated on every reconnect without session. `handler` runs on the loop, one delivery
  // at a time per subscription, and must not block; long work copies the Delivery into its own
  // queue. Throws kForbidden when the broker refuses.
  virtual Task<void> subscribe(Subscription subscription,
                               std::function<void(Delivery)> handler) = 0;
  virtual Task<void> unsubscribe(std::string filter) = 0;
  virtual bool connected() const noexcept = 0;
};

// True when `topic` matches `filter` with + and # (MQTT 5, 4.7); `$`-topics are not matched by
// leading wildcards.
bool topic_matches(std::string_view filter, std::string_view topic) noexcept;

}  // namespace flock::mqtt

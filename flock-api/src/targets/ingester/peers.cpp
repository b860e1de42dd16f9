// SPDX-License-Identifier: Apache-2.0
#include "targets/ingester/peers.h"

#include <algorithm>
#include <utility>

namespace flock::targets::ingester {
namespace {

constexpr const char* kFilter = "flock/internal/v1/ingester/+";
constexpr std::chrono::hours kSession{1};  // mqtt::ClientOptions::session_expiry

mqtt::Message note(const std::string& replica, std::string payload) {
  mqtt::Message message;
  message.topic = "flock/internal/v1/ingester/" + replica;
  message.payload = std::move(payload);
  message.retain = true;
  return message;
}

}  // namespace

mqtt::Message Peers::will(const std::string& replica) { return note(replica, "down"); }

Task<void> Peers::join(mqtt::Bus& bus) {
  if (replica_.empty()) co_return;
  mqtt::Subscription subscription;
  subscription.filter = kFilter;
  co_await bus.subscribe(subscription, [this](mqtt::Delivery delivery) {
    const std::string& topic = delivery.message.topic;
    const std::string name = topic.substr(topic.rfind('/') + 1);
    if (name == replica_)
      mistaken_ = delivery.message.payload == "down";
    else if (delivery.message.payload == "down")
      down_.emplace(name, std::chrono::steady_clock::now());
    else
      down_.erase(name);
    delivery.ack();
  });
  co_await bus.publish(note(replica_, "up"));
}

Task<void> Peers::refresh(mqtt::Bus& bus) {
  if (std::exchange(mistaken_, false)) co_await bus.publish(note(replica_, "up"));
}

Task<void> Peers::leave(mqtt::Bus& bus) {
  if (!replica_.empty()) co_await bus.publish(note(replica_, ""));
}

bool Peers::one_is_down() const {
  const SteadyPoint now = std::chrono::steady_clock::now();
  return std::ranges::any_of(down_,
                             [now](const auto& peer) { return now - peer.second < kSession; });
}

}  // namespace flock::targets::ingester

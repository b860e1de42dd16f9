// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <list>
#include <map>
#include <memory>
#include <string>

#include "mqtt/bus.h"

namespace flock::mqtt {

// The broker of unit tests: retained messages, shared subscriptions, wildcards; deliveries happen
// at once.
class MemoryBus final : public Bus {
 public:
  Task<void> publish(Message message) override;
  Task<void> subscribe(Subscription subscription, std::function<void(Delivery)> handler) override;
  Task<void> unsubscribe(std::string filter) override;
  bool connected() const noexcept override { return true; }

 private:
  struct Entry {
    std::string full, filter, group;
    std::function<void(Delivery)> handler;
  };
  std::list<Entry> entries_;
  std::map<std::string, Message> retained_;
  std::map<std::string, std::size_t> turns_;  // by group: whose turn it is
};

}  // namespace flock::mqtt

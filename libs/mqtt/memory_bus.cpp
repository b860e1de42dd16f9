// SPDX-License-Identifier: Apache-2.0
#include "mqtt/memory_bus.h"

#include <vector>

#include "base/error.h"

namespace flock::mqtt {

Task<void> MemoryBus::publish(Message message) {
  if (message.retain) {
    if (message.payload.empty()) {
      retained_.erase(message.topic);
    } else {
      retained_[message.topic] = message;
    }
  }
  std::vector<std::function<void(Delivery)>> targets;
  std::map<std::string, std::vector<std::function<void(Delivery)>>> groups;
  for (const Entry& entry : entries_) {
    if (!topic_matches(entry.filter, message.topic)) continue;
    (entry.group.empty() ? targets : groups[entry.full]).push_back(entry.handler);
  }
  for (const auto& [group, members] : groups)
    targets.push_back(members[turns_[group]++ % members.size()]);
  if (targets.empty() && message.must_be_heard)
    throw Error(Code::kUnavailable, "nobody subscribes to the message's topic")
        .with("topic", message.topic);
  for (const auto& target : targets) target(Delivery(message));
  co_return;
}

Task<void> MemoryBus::subscribe(Subscription subscription, std::function<void(Delivery)> handler) {
  Entry entry;
  entry.full = entry.filter = subscription.filter;
  if (entry.full.starts_with("$share/")) {
    const std::size_t slash = entry.full.find('/', 7);
    entry.group = entry.full.substr(7, slash - 7);
    entry.filter = entry.full.substr(slash + 1);
  }
  entry.handler = handler;
  entries_.push_back(std::move(entry));
  // Shared subscriptions get no retained messages (MQTT 5, 4.8.2).
  if (subscription.skip_retained || !entries_.back().group.empty()) co_return;
  const std::string filter = entries_.back().filter;
  for (const auto& [topic, message] : std::map(retained_)) {
    if (topic_matches(filter, topic)) handler(Delivery(message));
  }
}

Task<void> MemoryBus::unsubscribe(std::string filter) {
  std::erase_if(entries_, [&](const Entry& entry) { return entry.full == filter; });
  co_return;
}

}  // namespace flock::mqtt

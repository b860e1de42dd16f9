// SPDX-License-Identifier: Apache-2.0
#include "targets/ingester/publish.h"

#include "async/scope.h"

namespace flock::targets::ingester {

mqtt::Message internal_message(const char* topic, std::string payload) {
  mqtt::Message message;
  message.topic = std::string("flock/internal/v1/") + topic;
  message.payload = std::move(payload);
  return message;
}

Task<void> publish_all(mqtt::Bus& bus, std::vector<mqtt::Message> messages) {
  std::vector<Task<void>> tasks;
  tasks.reserve(messages.size());
  for (mqtt::Message& message : messages) tasks.push_back(bus.publish(std::move(message)));
  co_await run_all(std::move(tasks));
}

}  // namespace flock::targets::ingester

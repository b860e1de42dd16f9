// SPDX-License-Identifier: Apache-2.0
// Brings commands to devices and writes down what became of them. Several processes may run a
// driver: a command has an id, and a device does it once.
#pragma once

#include <deque>

#include "async/event.h"
#include "mqtt/bus.h"
#include "stores/postgres/database.h"

namespace flock::services {

class CommandDriver {
 public:
  CommandDriver(Executor executor, postgres::Database& db, mqtt::Bus& bus);
  Task<void> subscribe();
  // Until it is cancelled. What fails is tried again.
  Task<void> run();
  // There are new commands.
  void wake() { arrival_.set(); }

 private:
  Task<void> take();
  Task<void> apply(const std::string& payload);
  Task<void> send_due(std::vector<std::string> came_online);
  Task<void> send(const postgres::Row& command);
  Task<void> expire();

  postgres::Database& db_;
  mqtt::Bus& bus_;
  Event arrival_;
  std::deque<mqtt::Delivery> deliveries_;
};

}  // namespace flock::services

// SPDX-License-Identifier: Apache-2.0
// Brings commands to devices and writes down what became of them. Several processes may run a
// driver: a command has an id, and a device does it once. What devices say is written down by the
// ingester that took it, before it is acknowledged: the bus keeps nothing over a broker's death.
#pragma once

#include <deque>
#include <vector>

#include "async/event.h"
#include "flock/internal/v1/internal.pb.h"
#include "mqtt/bus.h"
#include "stores/postgres/database.h"

namespace flock::services {

// Writes down what devices say became of commands, in one statement; the same again, and what comes
// late, changes nothing. Throws kUnavailable.
Task<void> record_results(postgres::Database& db,
                          std::vector<internal::v1::CommandResulted> results);

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
  Task<void> send_due(std::vector<std::string> came_online);
  Task<void> send(const postgres::Row& command);
  Task<void> expire();

  postgres::Database& db_;
  mqtt::Bus& bus_;
  Event arrival_;
  std::deque<mqtt::Delivery> deliveries_;
};

}  // namespace flock::services

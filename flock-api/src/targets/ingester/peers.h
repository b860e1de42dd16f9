// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <map>
#include <string>

#include "base/time.h"
#include "mqtt/bus.h"

namespace flock::targets::ingester {

// The other ingesters. Of a shared subscription Mosquitto 2.0 goes on giving a share to a member
// that crashed, in its session, until that ends: meanwhile what devices say comes late, and silence
// means nothing. Each ingester keeps a retained note at the broker: "up", and by its last will
// "down".
class Peers {
 public:
  explicit Peers(std::string replica) : replica_(std::move(replica)) {}
  // What the broker is to publish when the ingester `replica` crashes.
  static mqtt::Message will(const std::string& replica);

  Task<void> join(mqtt::Bus& bus);
  // Repeats that this one is up, where the broker was made to think otherwise.
  Task<void> refresh(mqtt::Bus& bus);
  // In order: nobody waits for this one.
  Task<void> leave(mqtt::Bus& bus);
  bool one_is_down() const;

 private:
  std::string replica_;
  bool mistaken_ = false;
  std::map<std::string, SteadyPoint> down_;  // since when
};

}  // namespace flock::targets::ingester

// SPDX-License-Identifier: Apache-2.0
// Private to this room: health checks, which go on beside the rounds when they are slow.
#pragma once

#include <string>

#include "app/reconciler_state.h"
#include "async/event.h"
#include "async/task.h"

namespace flock::agent {

class Probes {
 public:
  explicit Probes(ReconcilerState& state) : state_(state), answered_(state.executor) {}
  // Waits for the answer for a moment. True when it changed what is known of the service's health.
  Task<bool> start(Action action, const DesiredState& active, const World& world);

 private:
  Task<void> probe(std::string service, Observed container, device::v1::HealthCheck check);

  ReconcilerState& state_;
  std::string waits_for_;  // the container whose answer the round waits for
  Event answered_;
};

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
// The first half of the audit log: saying what is about to change, before it does. The second half,
// which writes it down, is the audit target behind the broker.
#pragma once

#include <string>

#include "flock/internal/v1/internal.pb.h"
#include "mqtt/bus.h"

namespace flock::services {

class AuditTrail {
 public:
  explicit AuditTrail(mqtt::Bus& bus) : bus_(bus) {}
  // Returns when the broker has taken the event for the audit target's session. Throws
  // kUnavailable: then nothing may be changed. To be called as the last thing before a commit.
  Task<void> record(internal::v1::AuditEvent event);
  // Says that what record() announced did not happen. Tries for a while and logs a failure.
  Task<void> aborted(internal::v1::AuditEvent event);

 private:
  mqtt::Bus& bus_;
};

}  // namespace flock::services

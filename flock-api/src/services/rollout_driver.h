// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "crypto/seal.h"
#include "flock/device/v1/device.pb.h"
#include "mqtt/bus.h"
#include "stores/live_state/live_state.h"
#include "stores/postgres/database.h"

namespace flock::services {

// A device's newest word.
struct DeviceReport {
  OrgId org;
  DeviceId device;
  device::v1::ReportedState state;
};

// Brings desired states to devices, and takes in what they report. Every step is one transaction or
// one publish that may be repeated.
class RolloutDriver {
 public:
  // `keys` open desired states; all must outlive the driver.
  RolloutDriver(postgres::Database& db, stores::LiveState& live, mqtt::Bus& bus,
                const crypto::SealingKeys& keys)
      : db_(db), live_(live), bus_(bus), keys_(keys) {}

  // What the broker does not hold yet, retained. True when more of it may be waiting.
  Task<bool> publish_desired();
  Task<void> clear_removed();  // takes the desired state of removed devices from the broker
  // Of each device one. True when they changed something that the next round must look at.
  Task<bool> apply(std::vector<DeviceReport> reports);
  // Heals messages that were missed: each time a part of the devices that are under way.
  Task<void> reread_reports();
  // Says what was decided about rollouts, each turn until the broker has it; perhaps more than
  // once.
  Task<void> tell_turns();

 private:
  Task<bool> publish(const postgres::Row& device);
  Task<void> note_published(const std::vector<const postgres::Row*>& devices);
  Task<std::string> reread_page(OrgId org, std::string rollout, std::string after);
  Task<std::set<std::pair<std::string, std::string>>> note_machines(
      const std::vector<const DeviceReport*>& reports);
  Task<void> send_again(const std::vector<const DeviceReport*>& behind);

  postgres::Database& db_;
  stores::LiveState& live_;
  mqtt::Bus& bus_;
  const crypto::SealingKeys& keys_;
  std::map<DeviceId, SteadyPoint> republished_;
  std::string reread_rollout_, reread_device_;  // where reread_reports() goes on
};

}  // namespace flock::services

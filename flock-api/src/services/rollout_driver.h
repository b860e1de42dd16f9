// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

#include "crypto/seal.h"
#include "flock/device/v1/device.pb.h"
#include "mqtt/bus.h"
#include "stores/live_state/live_state.h"
#include "stores/postgres/database.h"

namespace flock::services {

// Carries out what domain/rollout.h decides. Every step is one transaction or one publish that may
// be repeated, so a scheduler that is killed anywhere goes on where it was. Used by the leader
// only.
class RolloutDriver {
 public:
  // `keys` open secret variables and seal desired states; they must outlive the driver.
  RolloutDriver(postgres::Database& db, stores::LiveState& live, mqtt::Bus& bus,
                const crypto::SealingKeys& keys)
      : db_(db), live_(live), bus_(bus), keys_(keys) {}

  Task<void>
  execute_deployments();  // PENDING deployments become rollouts with desired state for every device
  Task<void> adopt_latecomers();  // new devices of a fleet get what the fleet runs
  Task<void> rebuild_stale();     // devices whose variables changed get a new desired state
  Task<void> publish_desired();   // what the broker does not hold yet, retained
  Task<void> clear_removed();     // takes the desired state of removed devices from the broker
  // True when it changed something that the next round must look at.
  Task<bool> apply(OrgId org, DeviceId device, device::v1::ReportedState report);
  Task<void> reread_reports();  // heals messages that were missed
  Task<void> judge();           // ends rollouts
  // Says that rollouts began and ended, each until the broker has it; perhaps more than once.
  Task<void> tell_states();

 private:
  Task<void> execute(const postgres::Row& deployment);
  Task<void> want(postgres::Transaction& tx, const postgres::Row& deployment,
                  const postgres::Row& device, const std::string& rollout);
  Task<void> rebuild(std::string org, std::string device);
  Task<std::string> reread_page(OrgId org, std::string rollout, std::string after);
  Task<void> announce(std::string org, std::string rollout);
  Task<void> tell_state(const postgres::Row& rollout, std::string state, TimePoint at);

  postgres::Database& db_;
  stores::LiveState& live_;
  mqtt::Bus& bus_;
  const crypto::SealingKeys& keys_;
  std::string stale_after_;  // where the next round of rebuild_stale() begins
  std::map<DeviceId, SteadyPoint> republished_;
};

}  // namespace flock::services

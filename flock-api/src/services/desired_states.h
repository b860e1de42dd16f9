// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "crypto/seal.h"
#include "flock/device/v1/device.pb.h"
#include "mqtt/bus.h"
#include "stores/postgres/database.h"

namespace flock::services {

// Makes what devices are to run: of a release, for one platform, with the variables of one device.
// Every step is one transaction that may be repeated. Of one leadership: after its end nothing is
// written.
class DesiredStates {
 public:
  // `keys` open secret variables and seal desired states; all must outlive this.
  DesiredStates(postgres::Term term, mqtt::Bus& bus, const crypto::SealingKeys& keys)
      : term_(term), bus_(bus), keys_(keys) {}

  // For devices whose turn in a rollout has come, or that go back to what they were to run before.
  // One whose platform the release lacks has failed and keeps what it has. True when more of them
  // may be waiting.
  Task<bool> make_begun();
  // For devices whose variables changed.
  Task<void> rebuild_stale();

 private:
  struct Made;
  // Adds how many of them have or cannot have it now.
  Task<void> begin(std::string org, std::string rollout, std::vector<std::string> devices,
                   std::int64_t& handled);
  Task<Made> make(postgres::Transaction& tx, const postgres::Rows& locked, const std::string& org,
                  const std::string& rollout);
  Task<void> rebuild(std::string org, std::string device);

  postgres::Term term_;
  mqtt::Bus& bus_;
  const crypto::SealingKeys& keys_;
  std::string stale_after_;  // where the next round of rebuild_stale() begins
};

}  // namespace flock::services

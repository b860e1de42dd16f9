// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "domain/presence.h"
#include "targets/ingester/devices.h"
#include "targets/ingester/peers.h"
#include "targets/target.h"

namespace flock::targets::ingester {

// A message that says something of a device's presence.
struct Heard {
  std::string device;
  domain::Sign sign = domain::Sign::kReport;
  std::int64_t seq = 0, at_ms = 0;
  std::string agent_version;  // "": not said
  Duration silent_after{0};   // 0: not said
  std::size_t message = 0;    // which one of the caller's
};

// A device came or went.
struct Turn {
  std::string org, fleet, device, reason;
  bool online = false;
  std::int64_t at_ms = 0;
  std::size_t message = 0;
};
std::string payload_of(const Turn& turn);  // DevicePresence

// Decides with PostgreSQL, whose rows are locked meanwhile, so that of several ingesters one tells
// a turn. Told before it is committed: a kill in between makes it told twice, not never.
class PresenceBook {
 public:
  PresenceBook(Parts& parts, Devices& devices, Peers& peers, std::function<void(Turn)> turned);

  // All of a batch at once; answers who came and went.
  Task<std::vector<Turn>> apply(std::vector<Heard> heard);
  // A last will. The broker may have sent it when it was stopped: soon after a connection it waits
  // until the devices had time to come back.
  bool wait_with(const Heard& lost);
  // The device was heard from, so it is not lost.
  void heard_of(std::string_view device);
  // The messages that tell of life do not come through: nobody counts as silent for now.
  void deaf();
  // Notes who was heard from, and finds who was not; for ever.
  Task<void> sweep();

 private:
  Task<void> sweep_once();
  Task<void> touch();
  Task<void> apply_waiting();
  Task<bool> end_silent(Duration listening);
  Task<void> tell(const std::vector<Turn>& turns);
  Duration listening();

  Parts& parts_;
  Devices& devices_;
  Peers& peers_;
  const std::function<void(Turn)> turned_;  // by the sweep
  SteadyPoint connected_since_, listening_since_;
  std::uint64_t connections_ = 0;
  std::unordered_map<std::string, Heard> waiting_;
};

}  // namespace flock::targets::ingester

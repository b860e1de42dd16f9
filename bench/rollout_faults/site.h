// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "async/scope.h"
#include "faults/stack.h"
#include "net/http_client.h"
#include "sim/fleet.h"

namespace flock::faults {

// A fleet of virtual devices on servers of its own, with everything but a scheduler.
class Site {
 public:
  Site(Executor executor, const Stack& stack, int devices);
  // Returns when all devices are online.
  Task<void> open();
  Task<void> close();

  // A new release for the fleet, in four stages. Returns the rollout's id, which a scheduler makes.
  Task<void> deploy();
  // Since the last deploy(). "" when there is none yet.
  Task<std::string> rollout_state();
  // How many of its devices began.
  Task<std::int64_t> begun();
  // The rollout has ended; every device said how it went.
  Task<bool> settled();

  struct Outcome {
    std::int64_t confirmed = 0, failed = 0;  // devices
    std::int64_t decisions = 0;              // turns of the rollout
    std::vector<std::string> faults;         // everything that is not as it would be without faults
  };
  // What became of the last deployment beside what its devices were to do, each by its seed.
  Task<Outcome> outcome();

  const int devices;
  postgres::Database db;

 private:
  Task<void> make_tenant();
  Task<std::string> post(std::string path, std::string body);
  Task<postgres::Rows> ask(const char* sql);
  Task<void> check_devices(Outcome& outcome);
  Task<void> check_decisions(Outcome& outcome);

  const Stack& stack_;
  const int api_ = testing::free_port();
  Program backend_;
  net::HttpClient http_;
  agent::sim::Behaviour behaviour_;
  std::unique_ptr<agent::sim::Fleet> fleet_;
  TaskScope scope_;
  std::string key_, org_, release_, deployment_;
  std::int64_t deployments_ = 0;
};

}  // namespace flock::faults

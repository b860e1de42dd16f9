// SPDX-License-Identifier: Apache-2.0
// The reconciler's mind: what is wanted and what is seen in, what to do next out. No I/O, no clock.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/time.h"
#include "flock/device/v1/device.pb.h"

namespace flock::agent {

using device::v1::DesiredState;
using device::v1::ReportedState;
using device::v1::ServiceState;

enum class Run { kCreated, kRunning, kExited };
enum class Health { kNone, kChecking, kHealthy, kUnhealthy };

// A container that carries Flock's label, as the runtime shows it.
struct Observed {
  std::string id, service, config_hash, image_digest;
  Run run = Run::kCreated;
  int exit_code = 0;
  TimePoint started;
};

// What the agent remembers of one service between rounds; lost at a restart, which only costs a
// repeated attempt.
struct Memory {
  int failures = 0;        // of the same step in a row
  SteadyPoint retry_at{};  // not before
  std::string error_code, error;
  int restarts = 0;
  Health health = Health::kNone;
  int bad_probes = 0;
  SteadyPoint probe_at{};
  SteadyPoint running_since{};
};

enum class ActionKind { kPull, kRemove, kCreate, kStart, kProbe };
struct Action {
  ActionKind kind;
  std::string service;
  std::string container;  // kRemove, kStart, kProbe
};

struct World {
  const DesiredState& desired;
  std::vector<Observed> containers;
  std::set<std::string> images;                      // wanted images that are there
  std::map<std::string, std::string> config_hashes;  // by service
  SteadyPoint now;
};

struct Plan {
  std::vector<Action> actions;
  ReportedState::Phase phase = ReportedState::IDLE;
  std::string error_code, error;
  bool settled = false;  // all services run and are healthy; soaking or confirmed
  SteadyPoint wake_at = SteadyPoint::max();  // when something is due by itself
};

// Downloads come before anything is stopped; a container that is as wanted is never touched; what
// is not wanted goes; services start in the order of their dependencies; crashed ones start again
// by their policy with growing pauses. `settled_since`: since when the previous rounds were
// settled; SteadyPoint() when they were not.
Plan make_plan(const World& world, std::map<std::string, Memory>& memory,
               SteadyPoint settled_since);

// Pauses between attempts: 1 s, 2 s, 4 s, ... at most a minute.
Duration retry_pause(int failures);

// The report without identifiers and times of sending.
ReportedState make_report(const World& world, const Plan& plan,
                          const std::map<std::string, Memory>& memory);

}  // namespace flock::agent

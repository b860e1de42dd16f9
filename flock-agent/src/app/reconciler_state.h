// SPDX-License-Identifier: Apache-2.0
// Private to this room: what the parts of the reconciler share.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "app/ends.h"
#include "app/trials.h"
#include "app/wishes.h"
#include "async/event.h"
#include "async/scope.h"
#include "domain/plan.h"
#include "runtimes/runtime.h"

namespace flock::agent {

struct ReconcilerState {
  ReconcilerState(Executor e, std::unique_ptr<Runtime> r, Trials::Options trial_options,
                  std::function<void()> report_handler, Ends::Options ends_options);

  // Tells it when it says something new.
  void set_report(ReportedState fresh);
  // What the containers are to become: what is wanted, or what the device went back to.
  StatePtr target() const { return trials.target(wishes.desired()); }
  // Forgets what failed before.
  void begin_anew();

  Executor executor;
  std::unique_ptr<Runtime> runtime;
  Wishes wishes;
  Trials trials;
  std::map<std::string, Memory> memory;  // by service
  SteadyPoint settled_since{};
  ReportedState report;
  std::function<void()> on_report;
  Event wake;            // for the next round
  TaskScope background;  // probes, and looking into ends
  Ends ends;
};

inline SteadyPoint steady_now() { return std::chrono::steady_clock::now(); }
// It must be there.
const device::v1::Service& service_of(const DesiredState& state, const std::string& name);
// Whether the runtime's word or ours means a full disk.
bool is_disk_full(const std::string& message);

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
// Private to this room: what is asked for by hand is done between two rounds.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "app/reconciler_state.h"
#include "async/task.h"

namespace flock::agent {

// Its callers wait until it is done; what it does is described at Reconciler.
class ByHand {
 public:
  explicit ByHand(ReconcilerState& state) : state_(state) {}

  Task<void> restart(std::string service);
  Task<void> purge(std::string service, std::vector<std::string> volumes,
                   std::function<void()> emptied);
  Task<void> take_down(std::function<Task<void>()> then);
  // For the rounds: does what waits.
  Task<void> do_jobs();

 private:
  struct Job;
  Task<void> between_rounds(std::function<Task<void>()> work);
  Task<void> do_restart(std::string service);
  Task<void> do_purge(std::string service, std::vector<std::string> volumes,
                      std::function<void()> emptied);
  Task<void> do_take_down(std::function<Task<void>()> then);
  void tell_missing(const std::set<std::string>& services);

  ReconcilerState& state_;
  std::deque<std::shared_ptr<Job>> jobs_;
};

}  // namespace flock::agent

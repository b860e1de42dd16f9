// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "async/scope.h"
#include "async/task.h"
#include "domain/plan.h"
#include "runtimes/runtime.h"

namespace flock::agent {

// Finds out how the runs of containers end, and who ended them.
class Ends {
 public:
  struct Options {
    std::function<void(const std::string& service, const device::v1::Exit& exit)> on_known;
    // Called after it for a run that should have gone on, and that was seen to run.
    std::function<void(const std::string& service, const device::v1::Exit& exit)> on_news;
  };
  // Looks into an end in `background` when the runtime tells it only later; all three must outlive
  // this.
  Ends(Runtime& runtime, TaskScope& background, Options options);
  ~Ends();

  // Compares with what ran at the last look.
  Task<void> look(const World& world);

  // What flockd does itself is no news. `know` before `end`, unless the last look has seen it.
  void know(const Observed& container);
  Task<void> end(std::string container);  // stops it, if it runs
  void started(const std::string& container);
  void started_again(const std::string& container);  // after end()

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flock::agent

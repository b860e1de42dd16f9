// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "async/task.h"
#include "base/time.h"

namespace flock {

// One single-threaded event loop. run() returns when nothing is left to do or after stop().
class Loop {
 public:
  Loop();
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  Executor executor();
  void run();
  // Handlers that are still queued are dropped with the loop. Callable from any thread.
  void stop();

  // Runs `task` to its end on this loop and returns; what it throws comes out here. For main() and
  // tests.
  void run(Task<void> task);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Suspends for `duration`. Throws Error{kCancelled} when cancelled.
Task<void> sleep_for(Duration duration);
// Gives other handlers of this loop a turn. Throws Error{kCancelled} when cancelled; for long loops
// that do not wait.
Task<void> yield_now();

}  // namespace flock

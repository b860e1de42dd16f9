// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "async/task.h"
#include "base/time.h"

namespace flock {

// A flag that coroutines of one loop can wait for.
class Event {
 public:
  explicit Event(Executor executor);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void set();  // wakes every waiter; stays set
  void reset() noexcept;
  bool is_set() const noexcept;
  Task<void> wait();  // returns at once when set; kCancelled when cancelled
  // Stays until it is set, whatever the caller's owner wants; a cancellation that comes meanwhile
  // shows at the caller's next wait. For what must not be left half-way: short waits only.
  Task<void> wait_regardless();
  // False when `limit` passed first.
  Task<bool> wait_for(Duration limit);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace flock

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
  // False when `limit` passed first.
  Task<bool> wait_for(Duration limit);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace flock

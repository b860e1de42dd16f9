// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "async/task.h"

namespace flock {

// Owns background work: everything spawned here ends before the owner does.
//   scope.spawn("heartbeat", heartbeat());   ...   scope.cancel(); co_await scope.join();
// A task that ends with kCancelled ends silently; one that ends with another error is handed to
// on_failure (default: log it as an error), since nobody awaits it. Not thread-safe: use it on its
// executor only.
class TaskScope {
 public:
  explicit TaskScope(Executor executor);
  // All tasks must have ended (join was awaited) or the loop must never run again.
  ~TaskScope();
  TaskScope(const TaskScope&) = delete;
  TaskScope& operator=(const TaskScope&) = delete;

  void spawn(std::string name, Task<void> task);
  // Called on the loop with the task's name and what it threw.
  void on_failure(std::function<void(const std::string& name, std::exception_ptr)> handler);
  // Asks every task to stop; each sees kCancelled at its present or next wait. Later spawns start
  // cancelled.
  void cancel();
  // Resumes when no task is left. Does not cancel by itself.
  Task<void> join();
  // Cancels and joins, even when the caller itself is being cancelled: what the tasks use can go
  // away afterwards. A cancelled coroutine throws at every co_await, so its caller first says
  //   co_await asio::this_coro::throw_if_cancelled(false);
  // and true again afterwards.
  Task<void> finish();
  std::size_t size() const noexcept;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// All at once; returns when every one has ended, throws what the first one failed of.
Task<void> run_all(std::vector<Task<void>> tasks);
// Does `work` for 0 to `count` - 1, up to `at_once` at a time, and returns when all have ended.
// After the first that throws nothing more is begun; when those under way have ended, its error is
// thrown.
Task<void> for_each(std::size_t count, std::size_t at_once,
                    std::function<Task<void>(std::size_t)> work);

}  // namespace flock

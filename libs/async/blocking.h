// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "async/task.h"

namespace flock {

// The only threads beside the loops: a bounded pool for work that blocks (getaddrinfo, file
// systems) or burns CPU. Threads start with the first job. Results arrive on the caller's loop.
class BlockingPool {
 public:
  explicit BlockingPool(std::size_t threads = 2, std::size_t queue_limit = 1024);
  ~BlockingPool();  // finishes queued jobs
  BlockingPool(const BlockingPool&) = delete;
  BlockingPool& operator=(const BlockingPool&) = delete;

  // The process's own pool.
  static BlockingPool& shared();

  // What `job` throws is thrown here. Error{kUnavailable} when the queue is full. A cancelled
  // caller still waits for the job's end, because the job uses what it captured; then it gets
  // kCancelled.
  Task<void> run_void(std::function<void()> job);

  template <class T>
  Task<T> run(std::function<T()> job) {
    std::optional<T> result;
    std::function<void()> wrapped = [&result, &job] { result.emplace(job()); };
    co_await run_void(std::move(wrapped));
    co_return std::move(*result);
  }

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flock

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "async/task.h"
#include "base/time.h"

namespace flock::agent {

// A container and the k8s-file log that its runtime writes; no path: another log driver.
struct Followed {
  std::string service, container, log_path;
};

// Reads the logs of all containers and hands them on as LogBatch messages. Every line gets a
// number, from 1 in each epoch of a service, over restarts and replacements of its containers.
// Lines over the rate are numbered and left out, as gaps.
class LogFollower {
 public:
  struct Options {
    std::string data_dir;  // for the positions
    std::string boot_id;
    std::int64_t lines_per_second = 200, bytes_per_second = 64 << 10;  // of each service; 0: any
    bool kernel = false;                                               // the kernel's messages, too
    std::string kernel_path = "/dev/kmsg";
    Duration batch{1'000}, save{30'000};
    std::function<std::int64_t()> next_seq;
    // Resumes when the payload is safe.
    std::function<Task<void>(std::string payload)> deliver;
  };
  LogFollower(Executor executor, Options options);
  ~LogFollower();

  // All containers that are there now. One that is missing is read to its end.
  void follow(std::vector<Followed> containers);
  // Ends after finish(), when everything that is in the logs is delivered.
  Task<void> run();
  void finish();
  Task<bool> wait_finished(Duration limit);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flock::agent

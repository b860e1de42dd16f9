// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "async/task.h"
#include "domain/plan.h"
#include "domain/telemetry_pace.h"

namespace flock::agent {

// Looks at the machine and its containers, and sends what is new.
class Telemetry {
 public:
  struct Options {
    std::string root;  // "", or the folder with proc/ and sys/
    std::string data_dir;
    PaceOptions pace;
    std::function<std::vector<Observed>()> containers;
    std::function<bool()> updating;
    std::function<bool()> connected;
    // Adds identifiers and publishes. What it throws keeps the batch for the next time.
    std::function<Task<void>(device::v1::TelemetryBatch)> send;
  };
  Telemetry(Executor executor, Options options);
  ~Telemetry();
  Task<void> run();  // until cancelled
  void on_connected();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flock::agent

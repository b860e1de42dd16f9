// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "async/task.h"
#include "sim/behaviour.h"
#include "sim/virtual_device.h"

namespace flock::agent::sim {

struct FleetOptions {
  std::string server, provisioning_key_file, ca_file, name_prefix = "sim";
  std::int64_t count = 50;
  std::int64_t start_per_second = 1000;  // how fast devices come; the server may be slower
  Behaviour behaviour;
};

// Many virtual devices on one loop.
class Fleet {
 public:
  // Throws Error{kInvalidArgument} when the process may not open that many connections.
  Fleet(Executor executor, FleetOptions options);
  ~Fleet();
  // Until stop(); then every device says goodbye.
  Task<void> run();
  void stop();
  const Counts& counts() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flock::agent::sim

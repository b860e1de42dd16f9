// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "async/task.h"
#include "base/time.h"

namespace flock::agent {

struct AgentOptions {
  std::string server, provisioning_key_file, data_dir = "/var/lib/flockd", name, ca_file;
  std::string podman_socket = "/run/podman/podman.sock";
  std::vector<std::string> insecure_hosts;
  Duration state_interval{60'000}, reconcile_interval{5'000};
};

// flockd: keeps this device at what is wanted of it, and proves it. run() ends when stop() was
// called, or with true when it should be run anew, because what it was told at registration
// changed.
class Agent {
 public:
  Agent(Executor executor, AgentOptions options);
  ~Agent();
  Task<bool> run();
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flock::agent

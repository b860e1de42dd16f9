// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
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
  Duration reconcile_interval{5'000};
  std::string profile = "default";  // or "low": for lines that are paid by the byte
  // 0: what the profile says, or for the token the server.
  Duration state_interval{0}, look_interval{0}, telemetry_interval{0}, keep_alive{0},
      token_lifetime{0};
  bool reboot = true;
  std::vector<std::string> reboot_command;
  bool host_commands = true;
  std::vector<std::string> allowed_host_commands;  // none: all
  bool goes_back = true;                           // by itself from a release that cannot be kept
  Duration start_timeout{600'000}, contact_timeout{300'000};  // 0: no limit
  std::int64_t spool_limit = 32 << 20;   // bytes on disk of what cannot be sent
  std::int64_t spool_drain = 128 << 10;  // bytes a second of each kind, after an outage
  std::int64_t log_lines_per_second = 200, log_bytes_per_second = 64 << 10;  // of each service
  bool log_kernel = false, log_journal = false;
  std::string status_socket;  // "": data_dir/status.sock
  std::string root;           // "", or in tests a folder with proc/, sys/ and dev/
};
// Fills in what is 0 or empty. Throws kInvalidArgument for a profile that there is not, and for
// intervals that cannot be.
void complete(AgentOptions& options);

// flockd: keeps this device at what is wanted of it, and proves it. run() ends when stop() was
// called.
class Agent {
 public:
  Agent(Executor executor, AgentOptions options);
  ~Agent();
  Task<void> run();
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flock::agent

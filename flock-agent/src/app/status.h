// SPDX-License-Identifier: Apache-2.0
// What flockd tells of itself to whoever stands before the device: JSON over HTTP on a unix socket.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "app/agent.h"
#include "async/task.h"
#include "base/time.h"
#include "domain/plan.h"
#include "link/identity.h"
#include "link/uplink.h"

namespace flock::agent {

struct StatusFacts {
  std::string version, broker, last_error;
  const AgentOptions* options = nullptr;
  const Identity* identity = nullptr;
  const ReportedState* report = nullptr;
  std::int64_t desired_version = 0;
  TimePoint started, since;  // `since`: of the connection as it is; TimePoint() when there was none
  bool connected = false;
  std::size_t waiting_messages = 0, waiting_bytes = 0;
  std::string disk_error;  // of what waits
  Lost lost;
};
std::string write_status(const StatusFacts& facts);

class StatusServer {
 public:
  // `describe` returns the JSON document.
  StatusServer(Executor executor, std::string socket, std::function<std::string()> describe);
  ~StatusServer();
  // Only the owner may connect (0600). Throws Error{kUnavailable} when the path cannot be used.
  void start();
  Task<void> stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The document of the flockd that listens there. Throws Error{kUnavailable} when none does.
Task<std::string> ask_status(std::string socket);
// For people. Throws Error{kProtocol} for what is no such document.
std::string describe_status(const std::string& document);

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "async/task.h"
#include "domain/plan.h"

namespace flock::agent {

struct PullCredentials {
  std::string username, password;
};

// A container runtime on this device. Only containers that carry Flock's label are listed, and only
// those are handed back for changes. Every call may be repeated. Errors: kUnavailable when the
// runtime is away; a message that begins with "no_space" when the disk is full.
class Runtime {
 public:
  virtual ~Runtime() = default;
  virtual Task<std::vector<Observed>> list() = 0;
  virtual Task<bool> has_image(std::string image) = 0;
  // kNotFound, kForbidden, kUnavailable with the registry's words.
  virtual Task<void> pull(std::string image, PullCredentials credentials) = 0;
  // Creates the networks and volumes the service names, then the container, not started.
  virtual Task<std::string> create(device::v1::Service service, DesiredState desired,
                                   std::string config_hash) = 0;
  virtual Task<void> start(std::string container) = 0;
  // Stops within the container's grace period, then removes it; its named volumes stay.
  virtual Task<void> remove(std::string container) = 0;
  // One run of the container's health check; returns when the check has ended, however long it
  // takes (at most two minutes).
  virtual Task<bool> probe(std::string container) = 0;
  // Removes images and networks of ours that `desired` does not name. Volumes hold data and stay.
  virtual Task<void> clean_up(DesiredState desired) = 0;
};

}  // namespace flock::agent

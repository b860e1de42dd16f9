// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "async/task.h"
#include "base/time.h"
#include "domain/plan.h"

namespace flock::agent {

struct PullCredentials {
  std::string username, password;
};

// How a container's last run ended, but for who ended it.
struct LastRun {
  device::v1::Exit exit;
  TimePoint started;
};
// What the runtime wrote down of an end.
struct Ending {
  bool by_others = false;        // somebody stopped, killed or removed it
  std::optional<int> exit_code;  // nothing when it was not written down
};

// A container runtime on this device. Only containers that carry Flock's label are listed, and only
// those are handed back for changes. Every call may be repeated. Errors: kUnavailable when the
// runtime is away; a message that begins with "no_space" when the disk is full.
class Runtime {
 public:
  virtual ~Runtime() = default;
  virtual Task<std::vector<Observed>> list() = 0;
  virtual Task<bool> has_image(std::string image) = 0;
  // kNotFound, kForbidden, kUnavailable with the registry's words. `progress` is told now and then,
  // 0 to 100, as far as the runtime says.
  virtual Task<void> pull(std::string image, PullCredentials credentials,
                          std::function<void(int)> progress) = 0;
  // Creates the networks and volumes the service names, then the container, not started.
  virtual Task<std::string> create(device::v1::Service service, DesiredState desired,
                                   std::string config_hash) = 0;
  virtual Task<void> start(std::string container) = 0;
  // Within the container's grace period; it stays.
  virtual Task<void> stop(std::string container) = 0;
  // Of a container that has ended.
  virtual Task<LastRun> last_run_of(std::string container) = 0;
  // The first end of this container since then. Asked a second or more after it, for the runtime
  // writes down who did it only then. The container may be gone.
  virtual Task<Ending> ending_of(std::string container, TimePoint since) = 0;
  // Stops within the container's grace period, then removes it; its named volumes stay.
  virtual Task<void> remove(std::string container) = 0;
  // One run of the container's health check; returns when the check has ended, however long it
  // takes (at most two minutes).
  virtual Task<bool> probe(std::string container) = 0;
  // A volume by its name in the desired state, with all that is in it; it is made again with the
  // next container that names it. kConflict while a container uses it.
  virtual Task<void> remove_volume(std::string volume) = 0;
  // Removes images and networks of ours that `desired` does not name. Volumes hold data and stay.
  virtual Task<void> clean_up(DesiredState desired) = 0;
};

}  // namespace flock::agent

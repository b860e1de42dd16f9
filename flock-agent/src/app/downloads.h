// SPDX-License-Identifier: Apache-2.0
// Private to this room: images come beside the rounds, one at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "app/reconciler_state.h"
#include "async/scope.h"
#include "async/task.h"
#include "base/error.h"

namespace flock::agent {

class Downloads {
 public:
  using Credentials = std::function<Task<PullCredentials>()>;
  Downloads(ReconcilerState& state, Credentials credentials);

  void start(const device::v1::Service& service);
  // Ends one that nobody wants any more.
  Task<void> drop_unwanted();
  Task<void> stop();

 private:
  Task<void> pull(std::string service, std::string image);
  void note_pull_failure(const std::string& service, const Error& error, bool full);
  void note_progress(const std::string& service, int percent);
  Task<void> make_room(DesiredState keep);

  ReconcilerState& state_;
  Credentials credentials_;
  std::string image_;                 // of the last one
  std::unique_ptr<TaskScope> pulls_;  // at most one
};

}  // namespace flock::agent

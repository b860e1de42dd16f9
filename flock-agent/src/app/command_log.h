// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <string>

#include "flock/device/v1/device.pb.h"

namespace flock::agent {

// One command that this device has taken on.
struct CommandEntry {
  using State = device::v1::CommandResult::State;
  std::string id;
  device::v1::Command command;
  State state = State::CommandResult_State_STATE_UNSPECIFIED;
  std::string message;  // why it failed
  State told = State::CommandResult_State_STATE_UNSPECIFIED;
  std::string boot_id;   // in which it began
  bool emptied = false;  // a purge: the volumes are empty, what is left is to run again
  bool ended() const;
};

// The newest commands, on disk: each is done once, whatever is delivered twice and wherever flockd
// is interrupted. Not thread-safe.
class CommandLog {
 public:
  explicit CommandLog(std::string path) : path_(std::move(path)) {}
  // A damaged file is moved aside and counts as none.
  void load();
  // Throws Error{kUnavailable} when the disk is full; what is in memory stays changed.
  void save() const;
  // Null when it is not known (any more).
  CommandEntry* find(const std::string& id);
  // The oldest that has ended and was told goes when there are too many.
  CommandEntry& add(CommandEntry entry);
  std::deque<CommandEntry>& entries() noexcept { return entries_; }

 private:
  std::string path_;
  std::deque<CommandEntry> entries_;  // oldest first; references stay valid while others are added
};

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
// The steps of a host command on a device: command, reboot, verify, rollback. Each is written down
// before it is done, so that what a kill or a reboot interrupted is known afterwards. No I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "domain/plan.h"
#include "domain/trial.h"

namespace flock::agent {

enum class HostStep {
  kCommand,  // the four that are done, in this order
  kReboot,
  kVerify,
  kRollback,
  kDone,  // ended:
  kFailed,
  kUndone,      // on the server's word, or nothing was to be undone
  kUndoFailed,  // the rollback command failed when the server asked for it
};
bool has_ended(HostStep step);

// What became of a host command here.
struct HostRecord {
  HostStep step = HostStep::kCommand;  // begun, or what it ended as
  std::string boot_id;                 // in which the step was begun
  int tries = 0;                       // of the step, before this one
  bool undoing = false;                // the rollback command runs because it was asked for
  std::optional<int> exit_code;        // of the command
  Failure failure;                     // why it failed; "" so far it did not
};

// How a step ended.
struct StepEnd {
  bool good = false;
  bool ran = true;  // false: it could not even be begun
  bool in_time = true;
  std::optional<int> exit_code;
  std::string what;  // in words, when it is not good: "exit code 3"
};

// After the step ended: what is to be done next, or what it ended as.
HostRecord after(HostRecord record, const device::v1::HostCommand& command, const StepEnd& end);
// After a start of flockd in the middle of the step. A command is never run twice unless it says
// that this does no harm: its verify command says whether it was done, else it has failed.
HostRecord resume(HostRecord record, const device::v1::HostCommand& command,
                  const std::string& boot_id);
// A command that ended is to be undone.
HostRecord undo(HostRecord record, const device::v1::HostCommand& command);

}  // namespace flock::agent

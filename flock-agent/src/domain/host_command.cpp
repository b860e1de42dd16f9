// SPDX-License-Identifier: Apache-2.0
#include "domain/host_command.h"

#include <utility>

namespace flock::agent {
namespace {

using device::v1::HostCommand;

constexpr int kVerifyTries = 3;
constexpr int kTries = 3;  // of a reboot, and of a command that may be run again

HostRecord begin(HostRecord record, HostStep step) {
  record.step = step;
  record.tries = 0;
  return record;
}

HostRecord fail(HostRecord record, const HostCommand& command, std::string code,
                std::string error) {
  record.failure = {std::move(code), std::move(error)};
  return begin(std::move(record),
               command.rollback_command().empty() ? HostStep::kFailed : HostStep::kRollback);
}

HostRecord verify(HostRecord record, const HostCommand& command) {
  return begin(std::move(record),
               command.verify_command().empty() ? HostStep::kDone : HostStep::kVerify);
}

HostRecord fail_verify(HostRecord record, const HostCommand& command, const std::string& what) {
  const std::string before = record.failure.error;  // when it was interrupted
  return fail(std::move(record), command, "verify_failed",
              (before.empty() ? "" : before + ", and ") + "the verify command failed: " + what);
}

HostRecord after_rollback(HostRecord record, bool good, const std::string& what) {
  if (record.undoing) {
    if (!good) record.failure = {"host_rollback_failed", "the rollback command failed: " + what};
    return begin(std::move(record), good ? HostStep::kUndone : HostStep::kUndoFailed);
  }
  record.failure.error +=
      good ? "; its rollback command succeeded" : "; its rollback command failed too: " + what;
  return begin(std::move(record), HostStep::kFailed);
}

}  // namespace

bool has_ended(HostStep step) {
  return step != HostStep::kCommand && step != HostStep::kReboot && step != HostStep::kVerify &&
         step != HostStep::kRollback;
}

HostRecord after(HostRecord record, const HostCommand& command, const StepEnd& end) {
  switch (record.step) {
    case HostStep::kCommand:
      record.exit_code = end.exit_code;
      if (!end.ran) {  // there is nothing to roll back
        record.failure = {"host_command_failed", "the host command could not be run: " + end.what};
        return begin(std::move(record), HostStep::kFailed);
      }
      if (!end.good)
        return fail(std::move(record), command,
                    end.in_time ? "host_command_failed" : "host_command_timeout",
                    "the host command failed: " + end.what);
      if (command.reboot() == HostCommand::AFTER_SUCCESS ||
          command.reboot() == HostCommand::EXPECTED)
        return begin(std::move(record), HostStep::kReboot);
      return verify(std::move(record), command);
    case HostStep::kReboot:
      return fail(std::move(record), command, "reboot_failed",
                  "the machine did not start again after the host command: " + end.what);
    case HostStep::kVerify:
      if (end.good) {
        record.failure = {};
        return begin(std::move(record), HostStep::kDone);
      }
      if (++record.tries < kVerifyTries) return record;
      return fail_verify(std::move(record), command, end.what);
    case HostStep::kRollback:
      return after_rollback(std::move(record), end.good, end.what);
    default:
      return record;
  }
}

HostRecord resume(HostRecord record, const HostCommand& command, const std::string& boot_id) {
  const bool rebooted = record.boot_id != boot_id;
  switch (record.step) {
    case HostStep::kCommand: {
      if (rebooted && command.reboot() == HostCommand::EXPECTED)
        return verify(std::move(record), command);
      const std::string what = std::string(rebooted ? "the machine" : "flockd") +
                               " was started again in the middle of the host command";
      if (!command.verify_command().empty()) {
        record.failure = {"host_command_interrupted", what};
        return verify(std::move(record), command);
      }
      if (command.idempotent() && ++record.tries < kTries) return record;
      return fail(
          std::move(record), command, "host_command_interrupted",
          what + ", and no verify command can say whether it was done; it is not run twice");
    }
    case HostStep::kReboot:
      if (rebooted) return verify(std::move(record), command);
      if (++record.tries < kTries) return record;
      return fail(std::move(record), command, "reboot_failed",
                  "the machine was asked to start again, but only flockd did");
    case HostStep::kRollback:
      return after_rollback(std::move(record), false, "it was interrupted, and is not run twice");
    default:
      return record;
  }
}

HostRecord undo(HostRecord record, const HostCommand& command) {
  if (record.step == HostStep::kFailed) return record;  // that was rolled back
  if (record.step != HostStep::kDone || command.rollback_command().empty())
    return begin(std::move(record), HostStep::kUndone);
  record.undoing = true;
  return begin(std::move(record), HostStep::kRollback);
}

}  // namespace flock::agent

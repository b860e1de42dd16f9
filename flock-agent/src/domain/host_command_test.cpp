// SPDX-License-Identifier: Apache-2.0
#include "domain/host_command.h"

#include <gtest/gtest.h>

namespace flock::agent {
namespace {

using device::v1::HostCommand;

HostCommand command(HostCommand::Reboot reboot = HostCommand::NEVER) {
  HostCommand out;
  out.set_id("d");
  out.set_command("update");
  out.set_verify_command("check");
  out.set_rollback_command("back");
  out.set_reboot(reboot);
  return out;
}
HostRecord at(HostStep step) {
  HostRecord record;
  record.step = step;
  record.boot_id = "first";
  return record;
}
StepEnd good() { return {true, true, true, 0, ""}; }
StepEnd bad(int code = 3) { return {false, true, true, code, "exit code " + std::to_string(code)}; }

TEST(HostCommandSteps, RunInOrder) {
  HostRecord record = after(at(HostStep::kCommand), command(), good());
  EXPECT_EQ(record.step, HostStep::kVerify);
  EXPECT_EQ(record.exit_code, 0);
  EXPECT_EQ(after(record, command(), good()).step, HostStep::kDone);
  HostCommand plain = command();
  plain.clear_verify_command();
  EXPECT_EQ(after(at(HostStep::kCommand), plain, good()).step, HostStep::kDone);
  for (const auto reboot : {HostCommand::AFTER_SUCCESS, HostCommand::EXPECTED}) {
    EXPECT_EQ(after(at(HostStep::kCommand), command(reboot), good()).step, HostStep::kReboot);
    EXPECT_EQ(resume(at(HostStep::kReboot), command(reboot), "second").step, HostStep::kVerify);
  }
}

TEST(HostCommandSteps, AFailureIsRolledBackAndToldInWords) {
  HostRecord record = after(at(HostStep::kCommand), command(), bad());
  EXPECT_EQ(record.step, HostStep::kRollback);
  EXPECT_EQ(record.failure.code, "host_command_failed");
  record = after(record, command(), good());
  EXPECT_EQ(record.step, HostStep::kFailed);
  EXPECT_EQ(record.failure.error,
            "the host command failed: exit code 3; its rollback command succeeded");
  record = after(after(at(HostStep::kCommand), command(), bad()), command(), bad(4));
  EXPECT_EQ(record.failure.error,
            "the host command failed: exit code 3; its rollback command failed too: exit code 4");
  HostCommand plain = command();
  plain.clear_rollback_command();
  EXPECT_EQ(after(at(HostStep::kCommand), plain, bad()).step, HostStep::kFailed);
  StepEnd late = bad();
  late.in_time = false;
  EXPECT_EQ(after(at(HostStep::kCommand), plain, late).failure.code, "host_command_timeout");
}

TEST(HostCommandSteps, WhatCouldNotBeRunNeedsNoRollback) {
  const HostRecord record =
      after(at(HostStep::kCommand), command(), {false, false, true, {}, "no user x"});
  EXPECT_EQ(record.step, HostStep::kFailed);
  EXPECT_EQ(record.failure.error, "the host command could not be run: no user x");
}

TEST(HostCommandSteps, VerifyingIsTriedThreeTimes) {
  HostRecord record = at(HostStep::kVerify);
  for (int i = 0; i < 2; ++i) {
    record = after(record, command(), bad(1));
    EXPECT_EQ(record.step, HostStep::kVerify);
  }
  record = after(record, command(), bad(1));
  EXPECT_EQ(record.step, HostStep::kRollback);
  EXPECT_EQ(record.failure.code, "verify_failed");
  EXPECT_EQ(record.failure.error, "the verify command failed: exit code 1");
}

TEST(HostCommandSteps, AnInterruptedCommandIsNotRunTwice) {
  for (const char* boot : {"first", "second"}) {
    EXPECT_EQ(resume(at(HostStep::kCommand), command(), boot).step, HostStep::kVerify);
    HostCommand plain = command();
    plain.clear_verify_command();
    const HostRecord record = resume(at(HostStep::kCommand), plain, boot);
    EXPECT_EQ(record.step, HostStep::kRollback);
    EXPECT_EQ(record.failure.code, "host_command_interrupted");
    plain.set_idempotent(true);
    HostRecord again = resume(at(HostStep::kCommand), plain, boot);
    EXPECT_EQ(again.step, HostStep::kCommand);
    again = resume(again, plain, boot);
    EXPECT_EQ(again.step, HostStep::kCommand);
    EXPECT_EQ(resume(again, plain, boot).step, HostStep::kRollback) << "not for ever";
  }
  EXPECT_EQ(resume(at(HostStep::kCommand), command(HostCommand::EXPECTED), "second").failure.error,
            "")
      << "it was to start the machine again";
}

TEST(HostCommandSteps, AnInterruptedVerifyIsRunAgainAndARollbackIsNot) {
  EXPECT_EQ(resume(at(HostStep::kVerify), command(), "second").step, HostStep::kVerify);
  const HostRecord record = resume(at(HostStep::kRollback), command(), "second");
  EXPECT_EQ(record.step, HostStep::kFailed);
}

TEST(HostCommandSteps, AMachineThatDoesNotStartAgainIsAskedThreeTimes) {
  HostRecord record = at(HostStep::kReboot);
  record = resume(resume(record, command(HostCommand::AFTER_SUCCESS), "first"),
                  command(HostCommand::AFTER_SUCCESS), "first");
  EXPECT_EQ(record.step, HostStep::kReboot);
  record = resume(record, command(HostCommand::AFTER_SUCCESS), "first");
  EXPECT_EQ(record.failure.code, "reboot_failed");
}

TEST(HostCommandSteps, OnlyWhatWasDoneIsUndone) {
  HostRecord record = undo(at(HostStep::kDone), command());
  EXPECT_EQ(record.step, HostStep::kRollback);
  EXPECT_EQ(after(record, command(), good()).step, HostStep::kUndone);
  EXPECT_EQ(after(record, command(), bad()).step, HostStep::kUndoFailed);
  EXPECT_EQ(after(record, command(), bad()).failure.code, "host_rollback_failed");
  EXPECT_EQ(undo(at(HostStep::kFailed), command()).step, HostStep::kFailed);
  HostCommand plain = command();
  plain.clear_rollback_command();
  EXPECT_EQ(undo(at(HostStep::kDone), plain).step, HostStep::kUndone);
}

}  // namespace
}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
// Private to this room: does what a deployment asks of the machine itself, each command once, and
// remembers what became of it over kills and reboots.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "async/scope.h"
#include "async/task.h"
#include "domain/host_command.h"
#include "host/program.h"

namespace flock::agent {

class HostCommands {
 public:
  struct Options {
    std::string data_dir, boot_id;
    bool enabled = true;
    // Texts of commands and scripts that may be run, or "sha256:" and the hex digest of one. Empty:
    // all may.
    std::vector<std::string> allowed;
    bool may_reboot = true;
    std::function<Task<void>(std::string id)> reboot;  // throws when the machine still runs
    std::function<void()> on_change = [] {};
    // Without boot id and number.
    std::function<void(device::v1::LogBatch)> on_output = [](auto) {};
    Duration goes_down{120'000};   // how long a machine may take that starts again by itself
    Duration verify_pause{5'000};  // before the verify command is tried again
  };
  HostCommands(Executor executor, Options options);

  // Reads what was begun before. A damaged file is moved aside.
  void load();
  // Goes on with it.
  void go_on();
  // Begins it, or its undoing; nothing when it was asked for before, or another is under way.
  void want(const device::v1::HostCommand& command, bool undo);
  enum class Standing { kUnknown, kBusy, kDone, kFailed, kUndone, kUndoFailed };
  Standing standing(const std::string& id) const;
  // Why it failed.
  Failure failure(const std::string& id) const;
  void describe(const std::string& id, ReportedState& report) const;
  Task<void> stop();

 private:
  struct Entry {
    device::v1::HostCommand command;
    HostRecord record;
    ProcessGroup group;  // of the program that runs, or ran last
    std::string output;  // the beginning and the end of all that it wrote
    std::int64_t dropped_bytes = 0, log_lines = 0, started_ms = 0, ended_ms = 0;
  };
  static Entry read_entry(const std::string& text);
  static std::string write_entry(const Entry& entry);
  Entry* find(const std::string& id);
  const Entry* find(const std::string& id) const;
  std::string refusal_of(const device::v1::HostCommand& command) const;
  bool may_run(const std::string& text) const;
  bool save();
  void begin(Entry& entry);
  Task<void> carry_out(std::string id);
  Task<StepEnd> perform(std::string id);
  Task<StepEnd> run(std::string id, std::string name, Program program);
  Task<StepEnd> restart_machine(std::string id);
  void keep_output(Entry& entry, const std::string& name, const BoundedOutput& output,
                   const std::string& end);

  Options options_;
  std::string path_;
  std::deque<Entry> entries_;  // oldest first
  bool lost_ = false;          // what was done before is not known
  TaskScope running_;
};

}  // namespace flock::agent

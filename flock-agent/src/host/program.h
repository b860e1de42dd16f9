// SPDX-License-Identifier: Apache-2.0
// Programs that flockd runs on the machine for somebody else: in a process group of their own, for
// a limited time, with a limited output.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "async/task.h"
#include "base/time.h"

namespace flock::agent {

// What a program wrote: its beginning and its end, whatever is between them is counted.
class BoundedOutput {
 public:
  explicit BoundedOutput(std::size_t limit) : head_limit_(limit / 2), tail_limit_(limit / 2) {}
  void append(std::string_view bytes);
  // With a line in place of what was dropped.
  std::string text() const;
  std::int64_t dropped_bytes() const { return dropped_bytes_; }
  std::int64_t dropped_lines() const { return dropped_lines_; }
  const std::string& head() const { return head_; }
  const std::string& tail() const { return tail_; }

 private:
  std::size_t head_limit_, tail_limit_;
  std::string head_, tail_;
  std::int64_t dropped_bytes_ = 0, dropped_lines_ = 0;
};

struct Program {
  std::vector<std::string> words;  // the program, looked up in PATH, and its arguments
  // When not empty: handed to the program as a file, whose name is its last argument.
  std::string script;
  std::map<std::string, std::string> environment;  // the whole of it
  std::string working_directory = "/";
  std::string run_as;  // a user of this machine; "": who flockd runs as
  Duration timeout{600'000};
  Duration grace{5'000};  // between asking it to end and ending it
  std::size_t output_limit = 64 << 10;
};

struct ProgramEnd {
  int exit_code = 0;
  int signal = 0;          // 0: it ended by itself
  bool timed_out = false;  // and was ended for it, with all that it had begun
  BoundedOutput output;    // of stdout and stderr, as they came
};

// One process group, known again after flockd was killed: a number alone may be another's by then.
struct ProcessGroup {
  pid_t id = 0;
  std::int64_t started = 0;  // of its leader, in the kernel's ticks since boot
};
// The group that this process leads.
ProcessGroup group_of(pid_t leader, const std::string& root = "");
// Kills it unless its leader has gone: what that left behind on purpose may stay.
void kill_group(const ProcessGroup& group, const std::string& root = "");

// `on_started` is called as soon as it runs. A task that is cancelled kills the group. Throws
// Error{kNotFound} for an unknown user, Error{kUnavailable} when it cannot be begun.
Task<ProgramEnd> run_program(Program program, std::function<void(ProcessGroup)> on_started);

}  // namespace flock::agent

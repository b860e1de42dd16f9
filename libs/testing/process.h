// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

namespace flock::testing {

// A folder of its own that any user can enter, removed with everything in it.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const noexcept { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  std::string write(const std::string& name,
                    const std::string& content) const;  // 0644; returns the path

 private:
  std::string path_;
};

// A child process; dies with this one (PR_SET_PDEATHSIG) and with this object.
class Process {
 public:
  Process() = default;
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  // Output is appended to `log`. Throws Error{kNotFound} when the program is missing.
  void start(const std::vector<std::string>& arguments, const std::string& log);
  void signal(int number);
  // SIGTERM (or `number`), after 10 s SIGKILL; waits for the end.
  void stop(int number = 15);
  bool running();
  pid_t pid() const noexcept { return pid_; }

 private:
  pid_t pid_ = -1;
};

// Free at the moment of asking, and outside of what outgoing connections take, so that a server
// that is stopped finds its port free again.
int free_port();
bool port_open(int port);
// Polls every 10 ms; throws Error{kTimeout} naming `what`.
void wait_until(const std::string& what, const std::function<bool()>& condition, int seconds = 20);
// Runs a program to its end; throws Error{kInternal} with its output when it fails.
void run_program(const std::vector<std::string>& arguments, const std::string& input = "");
// Path of a program, or "" when it is not installed.
std::string find_program(const std::vector<std::string>& names);

}  // namespace flock::testing

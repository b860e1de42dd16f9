// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>

namespace flock::testing {

// Marks every step that a program takes towards a server on a unix socket, without a hook in the
// program: it stands between the two and calls `crash` at the chosen step. Each request has two
// marks: before the server sees it, and after the server did it but before the program hears so.
// Steps are POST and DELETE; reading changes nothing. One program at a time, one write per request.
class CrashPoints {
 public:
  CrashPoints(std::string listen, std::string server);
  ~CrashPoints();
  CrashPoints(const CrashPoints&) = delete;
  CrashPoints& operator=(const CrashPoints&) = delete;

  // Arms the `mark`-th mark (from 0) that is passed from now on. `crash` runs on a thread of its
  // own.
  void arm(int mark, std::function<void()> crash);
  // Marks passed since arm().
  int passed() const noexcept { return passed_; }
  bool crashed() const noexcept { return crashed_; }
  // What the step was: "POST /v4.0.0/libpod/containers/create, done".
  std::string step() const { return step_; }

 private:
  void accept_loop();
  void relay(int client);
  bool pass(const std::string& step);

  std::string server_;
  int listener_ = -1;
  std::function<void()> crash_;
  std::string step_;
  int mark_ = -1;
  std::atomic<int> passed_{0};
  std::atomic<bool> crashed_{false}, ending_{false};
  std::thread acceptor_;
};

}  // namespace flock::testing

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace flock::testing {

// Marks every step that a program takes towards a server, without a hook in the program: it stands
// between the two and calls `crash` at the chosen step. Each request has two marks: before the
// server sees it, and after the server did it but before the program hears so. One program at a
// time, one write per request.
class CrashPoints {
 public:
  // Names the step that is in what a client wrote at once, or answers "": what only reads is none.
  // One for each connection.
  using Reader = std::function<std::string(const std::string& written)>;

  // HTTP on unix sockets: steps are POST and DELETE.
  CrashPoints(std::string listen, std::string server);
  // On loopback ports.
  CrashPoints(int listen, int server, std::function<Reader()> readers);
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
  std::string step() const;

 private:
  void accept_loop();
  void relay(int client, const Reader& read);
  bool pass(const std::string& step);

  std::function<int()> connect_;  // to the server; -1: it is not there
  std::function<Reader()> readers_;
  int listener_ = -1;
  mutable std::mutex mutex_;  // of what arm() and the relays share
  std::function<void()> crash_;
  std::string step_;
  int mark_ = -1;
  std::atomic<int> passed_{0};
  std::atomic<bool> crashed_{false}, ending_{false};
  std::thread acceptor_;
};

// Statements that write, and the ends of transactions: "UPDATE devices SET ...".
CrashPoints::Reader postgres_steps();
// Messages that are published: "PUBLISH devices/.../desired".
CrashPoints::Reader mqtt_steps();

}  // namespace flock::testing

// SPDX-License-Identifier: Apache-2.0
// A rollout as its watcher sees it: a screen that is drawn anew on a terminal, dated lines
// elsewhere (FLOCK_PROGRESS=plain asks for the lines).
#pragma once

#include <boost/json/value.hpp>
#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "net/sse.h"
#include "output.h"

namespace flock::cli {

bool rollout_has_ended(const std::string& state);
// How many stages it has; 0 from a server that knew none.
std::size_t stages_of(const boost::json::value& rollout);

// What GET /v1/rollouts/{id}/events has told so far.
class RolloutScreen {
 public:
  explicit RolloutScreen(Output output) : output_(std::move(output)) {}
  void take(const net::SseEvent& event);
  // At most `height` lines of at most output.width columns. Where there is no room for all, the
  // devices' signs go first and the causes of failures last.
  std::vector<std::string> lines(std::size_t height) const;

 private:
  struct Device {
    std::string name, state, reason;
    std::int64_t stage = 0;
    bool online = true;
  };
  std::string head() const;
  std::string progress() const;
  std::vector<std::string> gates() const;
  std::vector<std::string> failures() const;
  std::vector<std::string> grid(std::size_t rows) const;

  Output output_;
  boost::json::value rollout_;
  std::map<std::string, Device> devices_;
};

// Writes events to standard output: as a screen, as lines, or each as JSON.
class RolloutPrinter {
 public:
  explicit RolloutPrinter(const Output& output);
  void show(const net::SseEvent& event);

 private:
  void draw();
  void say(const net::SseEvent& event);
  void say_device(const boost::json::value& device, const std::string& clock);
  void say_rollout(const boost::json::value& rollout, const std::string& clock);

  const Output& output_;
  RolloutScreen screen_;
  bool draws_;
  std::size_t drawn_ = 0;  // lines, of the last screen
  std::string said_;       // what the rollout waited for when it was last shown
};

}  // namespace flock::cli

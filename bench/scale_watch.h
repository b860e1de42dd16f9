// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "mqtt/client.h"
#include "net/sse.h"
#include "stores/live_state/live_state.h"

namespace flock::bench {

struct WatchOptions {
  std::string api_url, token;
  std::string live_address, live_password;
  mqtt::ClientOptions link;         // may publish for the probes
  std::vector<std::string> probes;  // devices that nobody else speaks for
};

// In milliseconds.
class Latencies {
 public:
  void add(double ms) { ms_.push_back(ms); }
  std::size_t count() const noexcept { return ms_.size(); }
  // 0 when there are none.
  double at(double share);

 private:
  std::vector<double> ms_;
};

struct Seen {
  Latencies events;  // from a change's time mark to its event in a stream
  Latencies live;    // from the sending of a probe's change to the live state that shows it
  std::int64_t gaps = 0, late_probes = 0;
};

// Somebody who follows every event, and one device at a time whose changes are looked for in the
// live state; on a thread of its own, so that the load's work is not counted as latency.
class Watch {
 public:
  explicit Watch(WatchOptions options);
  ~Watch();
  // True once the stream has begun.
  bool follows() const noexcept { return follows_; }
  // How late the newest event was, in milliseconds: what waits in front of those who follow.
  double lag() const noexcept { return lag_ms_; }
  // What was seen since the last call.
  Seen take();

 private:
  Task<void> live();
  Task<void> follow();
  Task<void> probe();
  Task<void> probe_one(const std::string& id);

  WatchOptions options_;
  std::atomic<bool> follows_ = false;
  std::atomic<double> lag_ms_ = 0;
  std::mutex mutex_;
  Seen seen_;
  std::int64_t seq_;
  Loop loop_;
  std::unique_ptr<stores::LiveState> store_;
  mqtt::Client link_;
  TaskScope scope_;
  Event stopping_;
  std::thread thread_;
};

}  // namespace flock::bench

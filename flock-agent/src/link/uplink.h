// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "async/task.h"
#include "base/time.h"

namespace flock::agent {

// What goes up beside the state, of which only the newest counts. In the order in which it is kept
// when there is no room: telemetry goes first, events last.
enum class Upward { kTelemetry, kLogs, kEvents };

// Thrown away since this device's data was made, because there was no room to keep it.
struct Lost {
  std::int64_t telemetry_points = 0, log_lines = 0, events = 0;
};

// The way up: at once while there is a connection, else by way of the disk, in order within each
// kind. Events are always on disk until the broker has them. Of the rest nothing is written while
// the connection is up and what is sent arrives. Lines of logs that are thrown away become gaps,
// which are sent in their place.
class Uplink {
 public:
  struct Options {
    std::string directory;
    std::int64_t limit_bytes = 32 << 20;              // on disk, all kinds together
    std::int64_t drain_bytes_per_second = 128 << 10;  // of each kind, after an outage
    // A fleet that comes back together does not send all it has at the same moment.
    Duration reconnect_spread{5'000};
    // How long the broker may take for an answer, and the first connection to come, before what
    // waits in memory is written to the disk. Lines of logs, which can be read again, wait so long
    // in an outage, too; telemetry does not.
    Duration patience{3'000};
    std::string boot_id;  // of messages of the uplink's own
    std::function<std::int64_t()> next_seq;
    // Resumes when the broker has it.
    std::function<Task<void>(Upward kind, std::string payload)> publish;
  };
  Uplink(Executor executor, Options options);
  ~Uplink();

  // Opens what is on disk. A disk that cannot be used is logged and tried again with each message
  // that needs it.
  void start();
  void set_connected(bool connected);
  // Events, and telemetry after a connection was lost, are on disk when it returns.
  void send(Upward kind, std::string payload);
  // Resumes when the broker has it; without a connection, or behind what waits on disk, when the
  // disk does; or when it was thrown away and counted.
  Task<void> deliver(Upward kind, std::string payload);
  // Sends what is in memory for at most `limit`; the rest is on disk when it returns, and what
  // comes later goes there at once.
  Task<void> stop(Duration limit);

  const Lost& lost() const noexcept;
  std::int64_t waiting_records() const noexcept;  // on disk
  std::int64_t waiting_bytes() const noexcept;
  // Why the disk did not take the last of what should wait there; "" when it did.
  const std::string& disk_trouble() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flock::agent

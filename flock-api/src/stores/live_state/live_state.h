// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/task.h"
#include "base/id.h"
#include "base/time.h"

namespace flock::stores {

// One report, as bytes, with what orders reports of a device: `seq` grows over the whole
// life of a device: it starts at the Unix time in milliseconds.
struct Report {
  DeviceId device;
  std::int64_t seq = 0;
  std::string value;
};

struct Put {
  bool stands = false;  // it is the stored report: newer than the one before, or the same again
  std::string told;     // what mark_told() said last of this device; "" for a report that is late
};

struct Told {
  DeviceId device;
  std::string what;
};

// The live state of devices (docs: contracts, 7). Batched: one round trip a call, whatever the
// count.
class LiveState {
 public:
  virtual ~LiveState() = default;
  // Keeps each report that is newer than the stored one; answers for each, in order. Applying the
  // same report twice keeps it once.
  virtual Task<std::vector<Put>> put_reported(std::vector<Report> reports) = 0;
  // Notes what others were told of these devices, for whoever puts their next report.
  virtual Task<void> mark_told(std::vector<Told> told) = 0;
  // Nothing for a device that never reported.
  virtual Task<std::vector<std::optional<std::string>>> get_reported(
      std::vector<DeviceId> devices) = 0;
  virtual Task<void> ping() = 0;
};

std::unique_ptr<LiveState> make_memory_live_state();
// `address` host:port. Reconnects by itself; while the server is away every call throws
// Error{kUnavailable}.
std::unique_ptr<LiveState> make_valkey_live_state(Executor executor, std::string address,
                                                  std::string password);

}  // namespace flock::stores

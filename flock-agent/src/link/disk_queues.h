// SPDX-License-Identifier: Apache-2.0
// Private to this room: the queues on disk, one of each kind, under one limit.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "link/uplink.h"
#include "spool/spool.h"

namespace flock::agent {

class DiskQueues {
 public:
  // `on_drop` hears every message that goes because its room is needed.
  DiskQueues(std::string directory, std::int64_t limit_bytes,
             std::function<void(Upward kind, std::string_view payload)> on_drop);

  // Null while the disk cannot be used; each call tries again.
  Spool* open(Upward kind);
  // False when it is not kept. On disk with the next sync(). Beyond the limit, and when the disk is
  // full, what is older goes: telemetry first, then lines, then events, and none that is worth more
  // than this.
  bool store(Upward kind, const std::string& payload);
  void sync(Upward kind);

  void note_trouble(const Error& error);
  // What the disk last said to what was stored; "" when it took it.
  const std::string& trouble() const noexcept { return trouble_; }
  std::int64_t waiting_records() const noexcept;
  std::int64_t waiting_bytes() const noexcept;
  static const char* name_of(Upward kind);

 private:
  std::int64_t disk_bytes() const;
  bool append(Spool& queue, const std::string& payload, std::string& refusal);
  bool make_room(Upward kind);

  std::string directory_;
  std::int64_t limit_bytes_;
  std::function<void(Upward, std::string_view)> on_drop_;
  std::array<std::optional<Spool>, 3> queues_;
  std::string trouble_;
  bool refused_ = false;  // since the last sync()
};

}  // namespace flock::agent

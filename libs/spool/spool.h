// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace flock {

struct SpoolOptions {
  std::string directory;
  std::int64_t limit_bytes = 64 << 20;  // on disk
  std::size_t segment_bytes = 1 << 20;  // of one file; the unit in which old records go
  std::size_t record_bytes = 1 << 20;   // longer records are refused with kTooLarge
};

// What was thrown away because the spool was full, since it was made.
struct Dropped {
  std::int64_t records = 0, bytes = 0;
};

// A queue of records on disk, bounded, for one process: what append() returned for survives a loss
// of power; a record that was cut or damaged is never given out; the records after it are. When
// full, the oldest segment goes and is counted. Blocks on the disk; use it from one thread.
class Spool {
 public:
  // Throws kUnavailable while another process holds the folder, or when it cannot be made.
  explicit Spool(SpoolOptions options);
  ~Spool();
  Spool(Spool&&) noexcept;

  enum class Sync { kNow, kLater };
  // kNow: on disk when it returns. kLater: with the next sync(). kUnavailable when the disk is
  // full: nothing of the record is left.
  void append(std::string_view record, Sync sync = Sync::kNow);
  void sync();
  // The oldest records that are not done(), up to `bytes` together, at least one if there is one;
  // the same until done().
  std::vector<std::string> next(std::size_t bytes);
  // The first `count` of what next() gave need not come again. Survives a restart, or some of them
  // come again after one.
  void done(std::size_t count);

  bool empty() const noexcept;
  std::int64_t waiting_bytes() const noexcept;
  std::int64_t waiting_records() const noexcept;
  Dropped dropped() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flock

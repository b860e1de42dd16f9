// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace flock {

class Disk;

struct SpoolOptions {
  std::string directory;
  std::int64_t limit_bytes = 64 << 20;  // on disk
  std::size_t segment_bytes = 1 << 20;  // of one file; the unit in which old records go
  std::size_t record_bytes = 1 << 20;   // longer records are refused with kTooLarge
  // Hears every record that is thrown away because the spool is full, before it goes.
  std::function<void(std::string_view record)> on_drop = {};
};

// What was thrown away because the spool was full, since its folder was made. What next() gave and
// done() had not confirmed yet counts, too: it may have arrived.
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
  // On a disk of the test's own, without a lock.
  Spool(SpoolOptions options, Disk& disk);
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
  // What its segments take on disk, and what makes that less: for spools that share a limit.
  std::int64_t disk_bytes() const noexcept;
  // The oldest segment goes, as if the spool were full. False when there is none.
  bool drop_oldest();
  // Stretches that could not be read since it was opened.
  std::int64_t damaged() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flock

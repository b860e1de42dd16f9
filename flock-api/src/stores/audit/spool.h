// SPDX-License-Identifier: Apache-2.0
// Private to this room: what was acknowledged and is not in Loki yet, on disk, chained already. All
// of it blocks; append() and next()/done() may run on two threads.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "audit/chain.h"
#include "base/files.h"
#include "stores/audit/segments.h"

namespace flock::stores {

struct Spooled {
  std::int64_t ns;  // Loki's timestamp: when it was spooled; no two are equal
  std::string line;
};

// Files in `directory`: N.spool with lines "<checksum> <ns> <line>", `heads` (every chain's end and
// the keys seen last, as of the files that are gone), `position` (what Loki has).
class Spool {
 public:
  Spool(std::string directory, std::int64_t limit_bytes, std::size_t segment_bytes);
  // Throws kUnavailable while another process holds it.
  void open();
  // True for a new spool: it must learn the heads of what Loki holds already.
  bool is_new() const;
  void learn(std::map<std::string, audit::Head> heads);
  // On disk when it returns; kUnavailable when there is no room.
  void append(const std::vector<audit::Event>& events);
  // The oldest that Loki does not have, about `bytes` of them; the same ones until done().
  std::vector<Spooled> next(std::size_t bytes);
  // Loki has what next() gave; `pushed_ns`: the timestamp of the last one there.
  void done(std::int64_t pushed_ns);
  std::int64_t pushed_ns() const;
  std::int64_t waiting_bytes() const;

 private:
  struct Segment {
    std::int64_t number, bytes;
  };
  struct Position {
    std::int64_t number = 0, offset = 0, pushed_ns = 0;
  };
  std::string path(std::int64_t number) const;
  void read_heads();
  void replay(const Segment& segment);
  void write_heads() const;
  void write_position(const Position& position);
  void remove_drained();
  std::int64_t waiting() const;

  const std::string directory_;
  const std::int64_t limit_;
  const std::size_t segment_bytes_;
  mutable std::mutex mutex_;
  FolderLock lock_;
  std::map<std::string, audit::Head> heads_;
  segments::RecentKeys recent_{8192};
  std::vector<Segment> segments_;
  Position position_, ahead_;  // ahead_: after what next() gave
  std::int64_t last_ns_ = 0;
  bool new_ = false;
};

}  // namespace flock::stores

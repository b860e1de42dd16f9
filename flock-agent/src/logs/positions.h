// SPDX-License-Identifier: Apache-2.0
// Private to this room: how far each service's log is safe with the broker or on the uplink's disk.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "logs/lines.h"

namespace flock::agent {

struct Position {
  std::int64_t epoch = 0, number = 1;  // of the next line
  // Where it is: the file and the byte in it. Without a container: what there was is read to its
  // end.
  std::string container;
  std::uint64_t inode = 0;
  std::string head;  // the file's first bytes, for inodes are used again
  std::int64_t offset = 0;
  RateLimit::State limit;
};

struct Positions {
  std::string boot_id;
  bool clean = false;  // no number beyond these was used
  std::map<std::string, Position> services;
};

// A damaged file is logged and nothing.
Positions load_positions(const std::string& path);
// Throws Error{kUnavailable}.
void save_positions(const std::string& path, const Positions& positions);

}  // namespace flock::agent

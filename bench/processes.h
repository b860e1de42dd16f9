// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

namespace flock::bench {

// What one row of the table has used by now. Of a row with children (PostgreSQL's connections) or
// several processes all count; memory that they share counts once.
struct Usage {
  double cpu_us = 0;  // user and system, since the start
  double bytes = 0;   // resident
};

// Other processes, watched through /proc, in the order in which they were added.
class Processes {
 public:
  // Another process of the same name belongs to the same row.
  void add(const std::string& name, pid_t pid);
  std::size_t size() const noexcept { return rows_.size(); }
  const std::string& name(std::size_t row) const { return rows_.at(row).first; }
  // For each row; one that ended counts as nothing.
  std::vector<Usage> now() const;

 private:
  std::vector<std::pair<std::string, std::vector<pid_t>>> rows_;
};

}  // namespace flock::bench

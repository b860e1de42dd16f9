// SPDX-License-Identifier: Apache-2.0
// Private to this room: files that only grow, for the store and for the spool. All of it blocks.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_set>

namespace flock::stores::segments {

std::int64_t size_of(const std::string& path);
// On disk when it returns. After a failure the file is as it was, as far as the disk lets it.
void append(const std::string& path, std::string_view text);
// What a power loss left behind the last whole line is moved to `path`.torn.
void cut_torn_tail(const std::string& path);
// Whole lines from `offset`, about `limit` bytes (at least one line). Answers where it stopped.
std::int64_t read_lines(const std::string& path, std::int64_t offset, std::size_t limit,
                        const std::function<void(std::string line)>& take);
void remove(const std::string& path);

// The events that came last: what a broker or a publisher sends again is among them.
class RecentKeys {
 public:
  explicit RecentKeys(std::size_t limit) : limit_(limit) {}
  bool contains(const std::string& key) const { return known_.contains(key); }
  void add(const std::string& key);
  const std::deque<std::string>& all() const { return order_; }

 private:
  std::size_t limit_;
  std::deque<std::string> order_;
  std::unordered_set<std::string> known_;
};

}  // namespace flock::stores::segments

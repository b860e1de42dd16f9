// SPDX-License-Identifier: Apache-2.0
// Private to this room: one container's log as the runtime writes it, held open, so that it can be
// read to its end after it was replaced (rotation) or removed with its container.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/files.h"

namespace flock::agent {

class LogFile {
 public:
  // Throws Error{kUnavailable}.
  explicit LogFile(std::string path);

  using Take = std::function<void(std::string_view raw, std::int64_t begin, std::int64_t end)>;
  // The next whole lines, some tens of kilobytes. False when there are none.
  bool read(const Take& take);
  // What is at the end without a newline, when nothing more will come.
  void read_rest(const Take& take);
  // Another file has its path now.
  bool replaced() const;

  void seek(std::int64_t offset) { offset_ = offset; }
  std::int64_t size() const;
  std::uint64_t inode() const { return inode_; }
  std::string head() const;  // its first bytes, of those that are there
  const std::string& path() const { return path_; }

 private:
  std::string_view fill() const;

  std::string path_;
  FileDescriptor file_;
  std::uint64_t inode_ = 0;
  std::int64_t offset_ = 0;
};

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
// Private to this room: what the queue asks of the folder it is in, so that a test can be a disk
// that is full or loses power.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace flock {

// Names are of files in the one folder. All throw Error{kUnavailable}. Until sync() a file's
// content may be lost in any part, until sync_folder() the making and removing of files.
class Disk {
 public:
  virtual ~Disk() = default;
  virtual std::vector<std::string> list(std::string_view suffix) = 0;  // sorted
  virtual std::int64_t size(const std::string& name) = 0;              // 0 when it does not exist
  // Shorter at the file's end.
  virtual std::string read(const std::string& name, std::int64_t offset, std::size_t size) = 0;
  virtual void write(const std::string& name, std::int64_t offset, std::string_view bytes) = 0;
  virtual void cut(const std::string& name, std::int64_t size) = 0;
  virtual void sync(const std::string& name) = 0;
  virtual void sync_folder() = 0;
  virtual void remove(const std::string& name) = 0;
  // The old content or the new one, on disk when it returns.
  virtual void replace(const std::string& name, std::string_view content) = 0;
};

}  // namespace flock

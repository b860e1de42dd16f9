// SPDX-License-Identifier: Apache-2.0
// Private to this room: the real one.
#pragma once

#include <string>

#include "base/files.h"
#include "spool/disk.h"

namespace flock {

class FileDisk final : public Disk {
 public:
  // Makes the folder and locks it.
  explicit FileDisk(std::string folder);

  std::vector<std::string> list(std::string_view suffix) override;
  std::int64_t size(const std::string& name) override;
  std::string read(const std::string& name, std::int64_t offset, std::size_t size) override;
  void write(const std::string& name, std::int64_t offset, std::string_view bytes) override;
  void cut(const std::string& name, std::int64_t size) override;
  void sync(const std::string& name) override;
  void sync_folder() override;
  void remove(const std::string& name) override;
  void replace(const std::string& name, std::string_view content) override;

 private:
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  int writable(const std::string& name);

  std::string folder_;
  FolderLock lock_;
  std::string open_;  // the file that was written last stays open: one call for each record
  FileDescriptor file_;
};

}  // namespace flock

// SPDX-License-Identifier: Apache-2.0
// Files and folders that must survive power loss.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace flock {

// Closed at its end.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  // Throws Error{kUnavailable}.
  FileDescriptor(const std::string& path, int flags, mode_t mode = 0600);
  ~FileDescriptor();
  FileDescriptor(FileDescriptor&& other) noexcept;
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

// kUnavailable with errno's text: "cannot <action>: no space left on device".
Error file_error(const char* action, const std::string& path);
// Whether what another program or file_error() says means a full disk.
bool is_no_space(std::string_view message);
// Throws Error{kUnavailable}; then a part may be written.
void write_all(int fd, std::string_view content, const std::string& path);
// What was made, renamed or removed in `folder` is on disk when it returns.
void sync_folder(const std::string& folder);
// With its parents, 0700, on disk when it returns.
void make_folders(const std::string& path);
// Names in `folder` that end in `suffix`, sorted; none when it does not exist.
std::vector<std::string> list_files(const std::string& folder, std::string_view suffix);

// One holder at a time, in this process and in others; a process that ends lets go.
class FolderLock {
 public:
  // kUnavailable while another holds it.
  void take(const std::string& folder);

 private:
  FileDescriptor file_;
};

// Nothing when the file does not exist. Throws Error{kTooLarge} past `limit`, Error{kUnavailable}
// when unreadable.
std::optional<std::string> read_file(const std::string& path, std::size_t limit = 1 << 20);

// Temporary file beside it, fsync, rename, fsync of the folder: readers see the old or the new
// content, never a part. Throws Error{kUnavailable} (disk full, read-only, ...) and leaves the old
// content.
void write_file_atomic(const std::string& path, std::string_view content, mode_t mode = 0600);

// A secret from a file; trailing newlines are not part of it. Throws when missing or empty.
std::string read_secret_file(const std::string& path);

}  // namespace flock

// SPDX-License-Identifier: Apache-2.0
#include "spool/file_disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/error.h"

namespace flock {

FileDisk::FileDisk(std::string folder) : folder_(std::move(folder)) {
  make_folders(folder_);
  lock_.take(folder_);
}

std::vector<std::string> FileDisk::list(std::string_view suffix) {
  return list_files(folder_, suffix);
}

std::int64_t FileDisk::size(const std::string& name) {
  struct stat info{};
  if (::stat(path(name).c_str(), &info) == 0) return info.st_size;
  if (errno == ENOENT) return 0;
  throw file_error("look at", path(name));
}

std::string FileDisk::read(const std::string& name, std::int64_t offset, std::size_t size) {
  const FileDescriptor file(::open(path(name).c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) {
    if (errno == ENOENT) return "";
    throw file_error("open", path(name));
  }
  std::string bytes(size, '\0');
  std::size_t got = 0;
  while (got < size) {
    const ssize_t more =
        ::pread(file.get(), bytes.data() + got, size - got, offset + static_cast<off_t>(got));
    if (more < 0 && errno == EINTR) continue;
    if (more < 0) throw file_error("read", path(name));
    if (more == 0) break;
    got += static_cast<std::size_t>(more);
  }
  bytes.resize(got);
  return bytes;
}

int FileDisk::writable(const std::string& name) {
  if (open_ != name) {
    file_ = FileDescriptor(path(name), O_WRONLY | O_CREAT);
    open_ = name;
  }
  return file_.get();
}

void FileDisk::write(const std::string& name, std::int64_t offset, std::string_view bytes) {
  const int file = writable(name);
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(file, bytes.data(), bytes.size(), offset);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) throw file_error("write", path(name));
    offset += done;
    bytes.remove_prefix(static_cast<std::size_t>(done));
  }
}

void FileDisk::cut(const std::string& name, std::int64_t size) {
  if (::ftruncate(writable(name), size) != 0) throw file_error("cut", path(name));
}

void FileDisk::sync(const std::string& name) {
  if (::fdatasync(writable(name)) != 0) throw file_error("sync", path(name));
}

void FileDisk::sync_folder() { flock::sync_folder(folder_); }

void FileDisk::remove(const std::string& name) {
  if (open_ == name) {
    file_ = FileDescriptor();
    open_.clear();
  }
  if (::unlink(path(name).c_str()) != 0 && errno != ENOENT) throw file_error("remove", path(name));
}

void FileDisk::replace(const std::string& name, std::string_view content) {
  write_file_atomic(path(name), content);
}

}  // namespace flock

// SPDX-License-Identifier: Apache-2.0
#include "base/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/error.h"

namespace flock {

FileDescriptor::FileDescriptor(const std::string& path, int flags, mode_t mode)
    : fd_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {
  if (fd_ < 0) throw file_error("open", path);
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

FileDescriptor::FileDescriptor(FileDescriptor&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)) {}

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

Error file_error(const char* action, const std::string& path) {
  return Error(Code::kUnavailable, std::string("cannot ") + action + ": " + std::strerror(errno))
      .with("file", path);
}

bool is_no_space(std::string_view message) {
  return message.find(std::strerror(ENOSPC)) != std::string_view::npos;
}

void write_all(int fd, std::string_view content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t done = ::write(fd, content.data(), content.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) throw file_error("write", path);
    content.remove_prefix(static_cast<std::size_t>(done));
  }
}

void sync_folder(const std::string& folder) {
  const FileDescriptor open(folder, O_RDONLY | O_DIRECTORY);
  if (::fsync(open.get()) != 0) throw file_error("sync", folder);
}

void make_folders(const std::string& path) {
  if (::access(path.c_str(), F_OK) == 0) return;
  const std::string parent = std::filesystem::path(path).parent_path().string();
  if (!parent.empty() && parent != path) make_folders(parent);
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    throw file_error("make the folder", path);
  if (!parent.empty()) sync_folder(parent);
}

std::vector<std::string> list_files(const std::string& folder, std::string_view suffix) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    std::string name = entry.path().filename().string();
    if (name.ends_with(suffix)) names.push_back(std::move(name));
  }
  if (error && error != std::errc::no_such_file_or_directory)
    throw Error(Code::kUnavailable, "cannot list: " + error.message()).with("folder", folder);
  std::sort(names.begin(), names.end());
  return names;
}

void FolderLock::take(const std::string& folder) {
  if (file_.get() >= 0) return;
  FileDescriptor file(folder + "/lock", O_RDWR | O_CREAT);
  // Of the open file, not of the process: two holders in one process are told apart too.
  posix_flock whole{};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  if (::fcntl(file.get(), F_OFD_SETLK, &whole) != 0)
    throw Error(Code::kUnavailable, "another process uses this folder").with("folder", folder);
  file_ = std::move(file);
}

std::optional<std::string> read_file(const std::string& path, std::size_t limit) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
    throw file_error("open", path);
  }
  std::string content;
  char block[16384];
  for (;;) {
    const ssize_t got = ::read(file.get(), block, sizeof block);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw file_error("read", path);
    if (got == 0) return content;
    content.append(block, static_cast<std::size_t>(got));
    if (content.size() > limit) {
      throw Error(Code::kTooLarge, "file is too large")
          .with("file", path)
          .with("limit_bytes", std::to_string(limit));
    }
  }
}

void write_file_atomic(const std::string& path, std::string_view content, mode_t mode) {
  const std::string temporary = path + ".new";
  try {
    const FileDescriptor file(temporary, O_WRONLY | O_CREAT | O_TRUNC, mode);
    if (::fchmod(file.get(), mode) != 0) throw file_error("chmod", temporary);
    write_all(file.get(), content, temporary);
    if (::fsync(file.get()) != 0) throw file_error("sync", temporary);
    if (::rename(temporary.c_str(), path.c_str()) != 0) throw file_error("rename", temporary);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  const std::size_t slash = path.rfind('/');
  sync_folder(slash == std::string::npos ? "." : path.substr(0, slash + 1));
}

std::string read_secret_file(const std::string& path) {
  auto content = read_file(path, 64 * 1024);
  if (!content) throw Error(Code::kNotFound, "secret file does not exist").with("file", path);
  while (!content->empty() && (content->back() == '\n' || content->back() == '\r')) {
    content->pop_back();
  }
  if (content->empty())
    throw Error(Code::kInvalidArgument, "secret file is empty").with("file", path);
  return *content;
}

}  // namespace flock

// SPDX-License-Identifier: Apache-2.0
#include "stores/audit/segments.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/log.h"

namespace flock::stores::segments {
namespace {

Error failed(const char* action, const std::string& path) {
  return Error(Code::kUnavailable, std::string("cannot ") + action + ": " + std::strerror(errno))
      .with("file", path);
}

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags) : fd_(::open(path.c_str(), flags, 0600)) {
    if (fd_ < 0) throw failed("open", path);
  }
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

void sync_folder(const std::string& path) {
  const Descriptor folder(std::filesystem::path(path).parent_path().string(),
                          O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (::fsync(folder.get()) != 0) throw failed("sync", path);
}

void write_all(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t done = ::write(fd, text.data(), text.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) throw failed("write", path);
    text.remove_prefix(static_cast<std::size_t>(done));
  }
}

}  // namespace

void make_folders(const std::string& path) {
  if (::access(path.c_str(), F_OK) == 0) return;
  const std::string parent = std::filesystem::path(path).parent_path().string();
  if (!parent.empty() && parent != path) make_folders(parent);
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) throw failed("make the folder", path);
  if (!parent.empty()) sync_folder(path);
}

std::vector<std::string> list(const std::string& folder, std::string_view suffix) {
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

std::int64_t size_of(const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) == 0) return info.st_size;
  if (errno == ENOENT) return 0;
  throw failed("look at", path);
}

void append(const std::string& path, std::string_view text) {
  const bool fresh = ::access(path.c_str(), F_OK) != 0;
  const Descriptor file(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC);
  const off_t before = ::lseek(file.get(), 0, SEEK_END);
  try {
    write_all(file.get(), text, path);
    if (::fsync(file.get()) != 0) throw failed("sync", path);
    if (fresh) sync_folder(path);
  } catch (const Error&) {
    if (::ftruncate(file.get(), before) != 0)
      log::warn("a half-written file could not be cut", {{"file", path}});
    throw;
  }
}

void cut_torn_tail(const std::string& path) {
  const Descriptor file(path, O_RDWR | O_CLOEXEC);
  const off_t end = ::lseek(file.get(), 0, SEEK_END);
  off_t whole = end;
  for (std::string block(4096, '\0'); whole > 0;) {
    const off_t begin = std::max<off_t>(0, whole - static_cast<off_t>(block.size()));
    const ssize_t got =
        ::pread(file.get(), block.data(), static_cast<std::size_t>(whole - begin), begin);
    if (got != whole - begin) throw failed("read", path);
    const std::size_t newline = block.rfind('\n', static_cast<std::size_t>(got) - 1);
    if (newline != std::string::npos) {
      whole = begin + static_cast<off_t>(newline) + 1;
      break;
    }
    whole = begin;
  }
  if (whole == end) return;
  std::string torn(static_cast<std::size_t>(end - whole), '\0');
  if (::pread(file.get(), torn.data(), torn.size(), whole) != end - whole)
    throw failed("read", path);
  log::warn("a file's last line is not whole and was cut off; it was never acknowledged",
            {{"file", path}, {"bytes", torn.size()}});
  append(path + ".torn", torn);
  if (::ftruncate(file.get(), whole) != 0 || ::fsync(file.get()) != 0) throw failed("cut", path);
}

std::int64_t read_lines(const std::string& path, std::int64_t offset, std::size_t limit,
                        const std::function<void(std::string line)>& take) {
  const Descriptor file(path, O_RDONLY | O_CLOEXEC);
  const std::int64_t end = offset + static_cast<std::int64_t>(limit);
  std::string block(65536, '\0'), line;
  for (std::int64_t at = offset; offset < end;) {
    const ssize_t got = ::pread(file.get(), block.data(), block.size(), at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw failed("read", path);
    if (got == 0) break;
    at += got;
    std::string_view rest(block.data(), static_cast<std::size_t>(got));
    for (std::size_t newline; offset < end && (newline = rest.find('\n')) != rest.npos;) {
      line += rest.substr(0, newline);
      rest.remove_prefix(newline + 1);
      offset += static_cast<std::int64_t>(line.size()) + 1;
      take(std::exchange(line, ""));
    }
    line += rest;
  }
  return offset;
}

void remove(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw failed("remove", path);
}

FolderLock::~FolderLock() {
  if (fd_ >= 0) ::close(fd_);
}

void FolderLock::take(const std::string& folder) {
  if (fd_ >= 0) return;
  const std::string path = folder + "/lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) throw failed("open", path);
  // Of the open file, not of the process: two stores in one process are told apart too.
  posix_flock whole{};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  if (::fcntl(fd, F_OFD_SETLK, &whole) != 0) {
    ::close(fd);
    throw Error(Code::kUnavailable, "another process writes the audit log").with("folder", folder);
  }
  fd_ = fd;
}

void RecentKeys::add(const std::string& key) {
  if (!known_.insert(key).second) return;
  order_.push_back(key);
  if (order_.size() <= limit_) return;
  known_.erase(order_.front());
  order_.pop_front();
}

}  // namespace flock::stores::segments

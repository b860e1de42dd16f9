// SPDX-License-Identifier: Apache-2.0
#include "stores/audit/segments.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"

namespace flock::stores::segments {

std::int64_t size_of(const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) == 0) return info.st_size;
  if (errno == ENOENT) return 0;
  throw file_error("look at", path);
}

void append(const std::string& path, std::string_view text) {
  const bool fresh = ::access(path.c_str(), F_OK) != 0;
  const FileDescriptor file(path, O_WRONLY | O_APPEND | O_CREAT);
  const off_t before = ::lseek(file.get(), 0, SEEK_END);
  try {
    write_all(file.get(), text, path);
    if (::fsync(file.get()) != 0) throw file_error("sync", path);
    if (fresh) sync_folder(std::filesystem::path(path).parent_path().string());
  } catch (const Error&) {
    if (::ftruncate(file.get(), before) != 0)
      log::warn("a half-written file could not be cut", {{"file", path}});
    throw;
  }
}

void cut_torn_tail(const std::string& path) {
  const FileDescriptor file(path, O_RDWR);
  const off_t end = ::lseek(file.get(), 0, SEEK_END);
  off_t whole = end;
  for (std::string block(4096, '\0'); whole > 0;) {
    const off_t begin = std::max<off_t>(0, whole - static_cast<off_t>(block.size()));
    const ssize_t got =
        ::pread(file.get(), block.data(), static_cast<std::size_t>(whole - begin), begin);
    if (got != whole - begin) throw file_error("read", path);
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
    throw file_error("read", path);
  log::warn("a file's last line is not whole and was cut off; it was never acknowledged",
            {{"file", path}, {"bytes", torn.size()}});
  append(path + ".torn", torn);
  if (::ftruncate(file.get(), whole) != 0 || ::fsync(file.get()) != 0)
    throw file_error("cut", path);
}

std::int64_t read_lines(const std::string& path, std::int64_t offset, std::size_t limit,
                        const std::function<void(std::string line)>& take) {
  const FileDescriptor file(path, O_RDONLY);
  const std::int64_t end = offset + static_cast<std::int64_t>(limit);
  std::string block(65536, '\0'), line;
  for (std::int64_t at = offset; offset < end;) {
    const ssize_t got = ::pread(file.get(), block.data(), block.size(), at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw file_error("read", path);
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
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw file_error("remove", path);
}

void RecentKeys::add(const std::string& key) {
  if (!known_.insert(key).second) return;
  order_.push_back(key);
  if (order_.size() <= limit_) return;
  known_.erase(order_.front());
  order_.pop_front();
}

}  // namespace flock::stores::segments

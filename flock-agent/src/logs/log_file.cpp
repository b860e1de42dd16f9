// SPDX-License-Identifier: Apache-2.0
#include "logs/log_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace flock::agent {
namespace {

constexpr std::size_t kHeadBytes = 48;  // a time in nanoseconds and the first words
// Longer than any piece the runtime writes (8 KiB and its header).
constexpr std::size_t kChunkBytes = 32 << 10;

// One for all: flockd has one loop, and nobody holds it over a wait.
std::array<char, kChunkBytes>& buffer() {
  static std::array<char, kChunkBytes> bytes;
  return bytes;
}

std::size_t read_at(int file, char* to, std::size_t size, std::int64_t offset,
                    const std::string& path) {
  for (;;) {
    const ssize_t got = ::pread(file, to, size, offset);
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno != EINTR) throw file_error("read", path);
  }
}

}  // namespace

LogFile::LogFile(std::string path) : path_(std::move(path)), file_(path_, O_RDONLY) {
  struct stat info{};
  if (::fstat(file_.get(), &info) != 0) throw file_error("look at", path_);
  inode_ = info.st_ino;
}

std::string_view LogFile::fill() const {
  return {buffer().data(), read_at(file_.get(), buffer().data(), kChunkBytes, offset_, path_)};
}

bool LogFile::read(const Take& take) {
  std::string_view bytes = fill();
  const bool full = bytes.size() == kChunkBytes;
  const std::int64_t began = offset_;
  for (;;) {
    std::size_t end = bytes.find('\n');
    if (end == std::string_view::npos) {
      if (!full || offset_ > began) break;
      end = bytes.size() - 1;  // no runtime writes such a line; it is taken in parts
    }
    const std::size_t text = bytes[end] == '\n' ? end : end + 1;
    const std::int64_t begin = offset_;
    offset_ += static_cast<std::int64_t>(end) + 1;
    take(bytes.substr(0, text), begin, offset_);
    bytes.remove_prefix(end + 1);
  }
  return offset_ > began;
}

void LogFile::read_rest(const Take& take) {
  const std::string_view bytes = fill();
  if (bytes.empty()) return;
  const std::int64_t begin = offset_;
  offset_ += static_cast<std::int64_t>(bytes.size());
  take(bytes, begin, offset_);
}

bool LogFile::replaced() const {
  struct stat info{};
  return ::stat(path_.c_str(), &info) == 0 && info.st_ino != inode_;
}

std::int64_t LogFile::size() const {
  struct stat info{};
  if (::fstat(file_.get(), &info) != 0) throw file_error("look at", path_);
  return info.st_size;
}

std::string LogFile::head() const {
  std::string bytes(kHeadBytes, '\0');
  bytes.resize(read_at(file_.get(), bytes.data(), bytes.size(), 0, path_));
  return bytes;
}

}  // namespace flock::agent

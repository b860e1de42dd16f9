// SPDX-License-Identifier: Apache-2.0
#include "base/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "base/error.h"

namespace flock {
namespace {

Error failed(const char* action, const std::string& path, int number) {
  return Error(Code::kUnavailable, std::string("cannot ") + action + ": " + std::strerror(number))
      .with("file", path);
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

void write_all(int fd, std::string_view content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t done = ::write(fd, content.data(), content.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) throw failed("write", path, errno);
    content.remove_prefix(static_cast<std::size_t>(done));
  }
}

}  // namespace

std::optional<std::string> read_file(const std::string& path, std::size_t limit) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
    throw failed("open", path, errno);
  }
  std::string content;
  char block[16384];
  for (;;) {
    const ssize_t got = ::read(file.get(), block, sizeof block);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw failed("read", path, errno);
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
    const Descriptor file(
        ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
    if (file.get() < 0) throw failed("create", temporary, errno);
    if (::fchmod(file.get(), mode) != 0) throw failed("chmod", temporary, errno);
    write_all(file.get(), content, temporary);
    if (::fsync(file.get()) != 0) throw failed("sync", temporary, errno);
    if (::rename(temporary.c_str(), path.c_str()) != 0) throw failed("rename", temporary, errno);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Descriptor parent(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (parent.get() < 0 || ::fsync(parent.get()) != 0) throw failed("sync", folder, errno);
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

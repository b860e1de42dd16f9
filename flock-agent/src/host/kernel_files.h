// SPDX-License-Identifier: Apache-2.0
// Private to this room: the small text files of /proc and /sys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace flock::agent {

inline constexpr std::size_t kKernelFileLimit = 64 * 1024;

// A file that is read again and again: it stays open, for opening costs more than reading. What
// cannot be read is opened anew at the next read.
class KernelFile {
 public:
  explicit KernelFile(std::string path) : path_(std::move(path)) {}
  ~KernelFile();
  KernelFile(const KernelFile&) = delete;
  KernelFile& operator=(const KernelFile&) = delete;

  // At most `limit` bytes from the beginning; nothing when it is absent or unreadable.
  std::optional<std::string> read(std::size_t limit = kKernelFileLimit);

 private:
  void close() noexcept;
  std::string path_;
  int fd_ = -1;
};

// The same once.
std::optional<std::string> read_kernel_file(const std::string& path,
                                            std::size_t limit = kKernelFileLimit);
// A file with one number in it; nothing for "max" and everything else that is none.
std::optional<std::int64_t> read_number(const std::string& path);
// The names in a folder, sorted; none when there is no such folder.
std::vector<std::string> names_in(const std::string& folder);

std::vector<std::string_view> words_of(std::string_view line);
std::vector<std::string_view> lines_of(std::string_view text);
std::optional<std::int64_t> number_of(std::string_view word);
std::optional<double> decimal_of(std::string_view word);
// The number behind `key` in lines such as "MemTotal:  16384 kB" or "inactive_file 4096".
std::optional<std::int64_t> value_of(std::string_view text, std::string_view key);

struct Traffic {
  std::int64_t received = 0, sent = 0;
};
// One interface of /proc/net/dev.
struct Interface {
  std::string_view name;
  Traffic bytes;
};
std::vector<Interface> parse_interfaces(std::string_view text);

// Processor time since boot, in ticks.
struct CpuTimes {
  std::int64_t total = 0, busy = 0;
};
// From the first line of /proc/stat.
std::optional<CpuTimes> parse_cpu(std::string_view text);

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
#include "host/kernel_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

namespace flock::agent {

KernelFile::~KernelFile() { close(); }

void KernelFile::close() noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

std::optional<std::string> KernelFile::read(std::size_t limit) {
  if (fd_ < 0) fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) return std::nullopt;
  std::string text;
  char block[4096];
  while (text.size() < limit) {
    const ssize_t n = ::pread(fd_, block, std::min(sizeof block, limit - text.size()),
                              static_cast<off_t>(text.size()));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      close();  // e.g. a sensor that was unplugged
      return std::nullopt;
    }
    if (n == 0) break;
    text.append(block, static_cast<std::size_t>(n));
  }
  return text;
}

std::optional<std::string> read_kernel_file(const std::string& path, std::size_t limit) {
  return KernelFile(path).read(limit);
}

std::optional<std::int64_t> read_number(const std::string& path) {
  const auto text = read_kernel_file(path, 64);
  if (!text) return std::nullopt;
  const auto words = words_of(*text);
  return words.size() == 1 ? number_of(words.front()) : std::nullopt;
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> out;
  DIR* dir = ::opendir(folder.c_str());
  if (dir == nullptr) return out;
  while (const dirent* entry = ::readdir(dir)) {
    if (entry->d_name[0] != '.') out.emplace_back(entry->d_name);
  }
  ::closedir(dir);
  std::sort(out.begin(), out.end());
  return out;
}

namespace {

std::vector<std::string_view> split(std::string_view text, std::string_view separators) {
  std::vector<std::string_view> out;
  for (std::size_t at = 0; (at = text.find_first_not_of(separators, at)) < text.size();) {
    const std::size_t end = std::min(text.find_first_of(separators, at), text.size());
    out.push_back(text.substr(at, end - at));
    at = end;
  }
  return out;
}

template <class T>
std::optional<T> parse(std::string_view word) {
  T value{};
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return value;
}

}  // namespace

std::vector<std::string_view> words_of(std::string_view line) { return split(line, " \t\n"); }
std::vector<std::string_view> lines_of(std::string_view text) { return split(text, "\n"); }
std::optional<std::int64_t> number_of(std::string_view word) { return parse<std::int64_t>(word); }

// The kernel writes "0.42"; strtod() would take the locale's comma and "inf", too.
std::optional<double> decimal_of(std::string_view word) {
  const std::size_t dot = std::min(word.find('.'), word.size());
  const auto whole = number_of(word.substr(0, dot));
  if (!whole || *whole < 0) return std::nullopt;
  const std::string_view digits = dot < word.size() ? word.substr(dot + 1) : std::string_view();
  if (digits.empty()) return static_cast<double>(*whole);
  const auto part = number_of(digits.substr(0, 9));
  if (!part || *part < 0) return std::nullopt;
  double fraction = static_cast<double>(*part);
  for (std::size_t i = 0; i < std::min<std::size_t>(digits.size(), 9); ++i) fraction /= 10;
  return static_cast<double>(*whole) + fraction;
}

std::optional<std::int64_t> value_of(std::string_view text, std::string_view key) {
  for (const std::string_view line : lines_of(text)) {
    if (!line.starts_with(key)) continue;
    const auto words = words_of(line);
    std::string_view name = words.empty() ? std::string_view() : words.front();
    if (name.ends_with(':')) name.remove_suffix(1);
    if (name == key && words.size() >= 2) return number_of(words[1]);
  }
  return std::nullopt;
}

std::vector<Interface> parse_interfaces(std::string_view text) {
  constexpr std::size_t kReceived = 0, kSent = 8, kColumns = 16;
  std::vector<Interface> out;
  for (const std::string_view line : lines_of(text)) {
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;  // the two lines of headings
    const auto name = words_of(line.substr(0, colon)), columns = words_of(line.substr(colon + 1));
    if (name.size() != 1 || columns.size() < kColumns) continue;
    const auto received = number_of(columns[kReceived]), sent = number_of(columns[kSent]);
    if (received && sent) out.push_back({name.front(), {*received, *sent}});
  }
  return out;
}

std::optional<CpuTimes> parse_cpu(std::string_view text) {
  constexpr std::size_t kIdle = 3, kWaiting = 4, kColumns = 8;  // what follows is part of user time
  const auto words = words_of(text.substr(0, text.find('\n')));
  if (words.size() < kColumns + 1 || words.front() != "cpu") return std::nullopt;
  CpuTimes out;
  for (std::size_t i = 0; i < kColumns; ++i) {
    const auto ticks = number_of(words[i + 1]);
    if (!ticks || *ticks < 0) return std::nullopt;
    out.total += *ticks;
    if (i != kIdle && i != kWaiting) out.busy += *ticks;
  }
  return out;
}

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
#include "logs/kernel_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <ctime>

#include "base/bytes.h"
#include "base/time.h"
#include "logs/lines.h"

namespace flock::agent {
namespace {

using device::v1::LogLine;

LogLine::Level level_of(unsigned priority) {
  const unsigned severity = priority & 7;  // the rest is the facility
  return severity <= 2   ? LogLine::FATAL
         : severity == 3 ? LogLine::ERROR
         : severity == 4 ? LogLine::WARN
         : severity <= 6 ? LogLine::INFO
                         : LogLine::DEBUG;
}

// Control characters, backslashes and what is no ASCII come as \xHH.
std::string unescape(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const auto byte = text.starts_with("\\x") ? from_hex(text.substr(2, 2)) : std::nullopt;
    const bool escaped = byte && byte->size() == 1;
    out += escaped ? *byte : std::string(1, text.front());
    text.remove_prefix(escaped ? 4 : 1);
  }
  return out;
}

std::int64_t booted_ms() {
  timespec up{};
  ::clock_gettime(CLOCK_MONOTONIC, &up);
  return to_unix_ms(system_clock().now()) - up.tv_sec * 1000 - up.tv_nsec / 1'000'000;
}

}  // namespace

bool parse_kernel_record(std::string_view text, std::int64_t booted_ms, KernelRecord& out) {
  const std::size_t semicolon = text.find(';');
  if (semicolon == std::string_view::npos) return false;
  std::uint64_t numbers[3]{};
  const char* at = text.data();
  const char* const end = text.data() + semicolon;
  for (std::uint64_t& number : numbers) {
    const auto [next, error] = std::from_chars(at, end, number);
    if (error != std::errc()) return false;
    at = std::min(next + 1, end);
  }
  text.remove_prefix(semicolon + 1);
  out.sequence = static_cast<std::int64_t>(numbers[1]);
  out.line.Clear();
  out.line.set_at_ms(booted_ms + static_cast<std::int64_t>(numbers[2] / 1000));
  out.line.set_source(LogLine::KERNEL);
  out.line.set_level(level_of(static_cast<unsigned>(numbers[0])));
  out.line.set_text(clean_text(unescape(text.substr(0, text.find('\n')))));
  return true;
}

KernelLog::KernelLog(const std::string& path, std::int64_t first_sequence)
    : file_(path, O_RDONLY | O_NONBLOCK), path_(path), first_(first_sequence) {}

bool KernelLog::read(KernelRecord& out) {
  char record[8192];  // one a read
  for (;;) {
    const ssize_t got = ::read(file_.get(), record, sizeof record);
    if (got < 0 && (errno == EINTR || errno == EPIPE)) continue;  // EPIPE: it skips to the oldest
    if (got <= 0) return false;
    const std::string_view text(record, static_cast<std::size_t>(got));
    if (!parse_kernel_record(text, booted_ms(), out)) continue;
    if (out.sequence >= first_) return true;
  }
}

}  // namespace flock::agent

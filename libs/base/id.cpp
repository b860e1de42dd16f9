// SPDX-License-Identifier: Apache-2.0
#include "base/id.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <mutex>

#include "base/error.h"
#include "base/random.h"

namespace flock {
namespace {

// Milliseconds that never go back and differ by the 12-bit counter in `rand_a` (RFC 9562, 6.2
// method 1).
struct Tick {
  std::uint64_t milliseconds;
  std::uint32_t counter;
};

Tick next_tick() {
  static std::mutex mutex;
  static Tick last{0, 0};
  const auto now = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::system_clock::now().time_since_epoch());
  const std::lock_guard lock(mutex);
  const auto milliseconds = static_cast<std::uint64_t>(now.count());
  if (milliseconds > last.milliseconds) {
    last = {milliseconds, 0};
  } else if (++last.counter == 0x1000) {
    last = {last.milliseconds + 1, 0};
  }
  return last;
}

// Sets the time, the version and the variant of `bytes`.
std::string text_of(std::uint64_t milliseconds, std::array<unsigned char, 16> bytes) {
  for (std::size_t i = 0; i < 6; ++i)
    bytes[i] = static_cast<unsigned char>(milliseconds >> (8 * (5 - i)));
  bytes[6] = static_cast<unsigned char>(0x70 | (bytes[6] & 0x0f));
  bytes[8] = static_cast<unsigned char>(0x80 | (bytes[8] & 0x3f));
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  text.reserve(36);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += kHex[bytes[i] >> 4];
    text += kHex[bytes[i] & 15];
  }
  return text;
}

// Fetched for many ids at once: each request has one, and a system call costs more than all else
// here. No program of ours goes on after a fork.
std::array<unsigned char, 16> random_block() {
  thread_local std::array<std::array<unsigned char, 16>, 32> blocks;
  thread_local std::size_t left = 0;
  if (left == 0) {
    random_bytes(blocks.data(), sizeof blocks);
    left = blocks.size();
  }
  return blocks[--left];
}

}  // namespace

std::string new_uuid() {
  const Tick tick = next_tick();
  std::array<unsigned char, 16> bytes = random_block();
  bytes[6] = static_cast<unsigned char>(tick.counter >> 8);
  bytes[7] = static_cast<unsigned char>(tick.counter);
  return text_of(tick.milliseconds, bytes);
}

std::string uuid_of(std::uint64_t unix_ms, std::string_view bits) {
  FLOCK_ASSERT(bits.size() >= 10);
  std::array<unsigned char, 16> bytes;
  std::copy_n(bits.begin(), 10, bytes.begin() + 6);
  return text_of(unix_ms, bytes);
}

bool is_uuid(std::string_view text) noexcept {
  if (text.size() != 36) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    if (dash ? c != '-' : !hex) return false;
  }
  return true;
}

void require_uuid(std::string_view text, std::string_view what) {
  if (is_uuid(text)) return;
  throw Error(Code::kInvalidArgument, "not a valid " + std::string(what))
      .with("value", std::string(text.substr(0, 64)))
      .hint("ids are lower-case UUIDs such as 0190f3a2-7c11-7abc-8def-0123456789ab");
}

}  // namespace flock

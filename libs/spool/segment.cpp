// SPDX-License-Identifier: Apache-2.0
#include "spool/segment.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <vector>

namespace flock::spool {
namespace {

constexpr std::string_view kMagic = "FLKSPOL\x01";  // the last byte is the format's version
constexpr std::int64_t kWindowBytes = 32 << 10;

constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0x82F63B78U : 0U);
    table[i] = value;
  }
  return table;
}

// CRC-32C (RFC 3720, B.4).
class Checksum {
 public:
  Checksum& add(std::string_view bytes) {
    static constexpr auto kTable = crc_table();
    for (const char byte : bytes)
      value_ = (value_ >> 8) ^ kTable[(value_ ^ static_cast<unsigned char>(byte)) & 0xFF];
    return *this;
  }
  std::uint32_t value() const { return ~value_; }

 private:
  std::uint32_t value_ = ~0U;
};

void put(std::string& to, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) to.push_back(static_cast<char>(value >> (8 * i)));
}

std::uint64_t get(std::string_view from, std::size_t at, int bytes) {
  std::uint64_t value = 0;
  for (int i = bytes; i-- > 0;)
    value = value << 8 | static_cast<unsigned char>(from[at + static_cast<std::size_t>(i)]);
  return value;
}

std::uint32_t frame_checksum(std::int64_t number, std::int64_t offset, std::string_view record) {
  std::string place;
  put(place, static_cast<std::uint64_t>(number), 8);
  put(place, static_cast<std::uint64_t>(offset), 8);
  put(place, record.size(), 4);
  return Checksum().add(place).add(record).value();
}

}  // namespace

std::string segment_name(std::int64_t number) {
  char digits[20];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(number));
  return digits + std::string(kSuffix);
}

std::optional<std::int64_t> segment_number(std::string_view name) {
  if (name.size() != 16 + kSuffix.size() || !name.ends_with(kSuffix)) return std::nullopt;
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + 16, number, 16);
  if (error != std::errc() || end != name.data() + 16 || number <= 0 || number > kMaxNumber)
    return std::nullopt;
  return number;
}

std::string header(std::int64_t number) {
  std::string bytes(kMagic);
  put(bytes, static_cast<std::uint64_t>(number), 8);
  return bytes;
}

void frame(std::string& to, std::int64_t number, std::int64_t offset, std::string_view record) {
  put(to, frame_checksum(number, offset, record), 4);
  put(to, record.size(), 4);
  to += record;
}

std::string checked(std::initializer_list<std::int64_t> numbers) {
  std::string bytes;
  for (const std::int64_t number : numbers) put(bytes, static_cast<std::uint64_t>(number), 8);
  put(bytes, Checksum().add(bytes).value(), 4);
  return bytes;
}

std::optional<std::vector<std::int64_t>> read_checked(std::string_view bytes) {
  if (bytes.size() % 8 != 4) return std::nullopt;
  const std::size_t size = bytes.size() - 4;
  if (get(bytes, size, 4) != Checksum().add(bytes.substr(0, size)).value()) return std::nullopt;
  std::vector<std::int64_t> numbers;
  for (std::size_t at = 0; at < size; at += 8)
    numbers.push_back(static_cast<std::int64_t>(get(bytes, at, 8)));
  return numbers;
}

SegmentReader::SegmentReader(Disk& disk, std::int64_t number, std::int64_t offset)
    : disk_(disk), number_(number), offset_(offset), name_(segment_name(number)) {
  end_ = disk_.size(name_);
  if (bytes_at(0, kHeaderBytes) != header(number)) offset_ = 0;  // nothing in it can be trusted
}

std::string_view SegmentReader::bytes_at(std::int64_t offset, std::int64_t size) {
  const auto held = static_cast<std::int64_t>(window_.size());
  if (offset < window_at_ || offset + size > window_at_ + held) {
    window_ = disk_.read(name_, offset, static_cast<std::size_t>(std::max(size, kWindowBytes)));
    window_at_ = offset;
  }
  return std::string_view(window_).substr(static_cast<std::size_t>(offset - window_at_),
                                          static_cast<std::size_t>(size));
}

// Nothing when the file is too short for what its length says.
std::optional<SegmentReader::Frame> SegmentReader::frame_at(std::int64_t offset) {
  if (offset + kFrameBytes > end_) return std::nullopt;
  std::string_view bytes = bytes_at(offset, kFrameBytes);
  if (bytes.size() < kFrameBytes) return std::nullopt;
  const auto checksum = static_cast<std::uint32_t>(get(bytes, 0, 4));
  const auto length = static_cast<std::int64_t>(get(bytes, 4, 4));
  if (length > end_ - offset - kFrameBytes) return std::nullopt;
  bytes = bytes_at(offset, kFrameBytes + length);
  if (static_cast<std::int64_t>(bytes.size()) < kFrameBytes + length) return std::nullopt;
  const std::string_view record = bytes.substr(kFrameBytes);
  return Frame{length, checksum == frame_checksum(number_, offset, record), record};
}

std::optional<std::string_view> SegmentReader::next() {
  if (offset_ == 0) return std::nullopt;
  std::int64_t damaged = 0;
  for (std::int64_t at = offset_;; ++damaged) {
    const auto found = frame_at(at);
    if (!found) return std::nullopt;
    at += kFrameBytes + found->length;
    if (!found->whole) continue;  // its length may be right: then the next one is
    offset_ = at;
    passed_over_ += damaged;
    return found->record;
  }
}

}  // namespace flock::spool

// SPDX-License-Identifier: Apache-2.0
// Private to this room: how records lie in a segment file. A header of 16 bytes ("FLKSPOL", the
// version, the segment's number), then for each record its CRC-32C, its
// length (both 4 bytes, little endian) and its bytes. The checksum covers segment, offset and
// length, too: what lies at a wrong place is not taken for a record.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spool/disk.h"

namespace flock::spool {

inline constexpr std::int64_t kHeaderBytes = 16, kFrameBytes = 8;
inline constexpr std::int64_t kMaxNumber = std::int64_t{1} << 56;  // of segments, offsets, counts
inline constexpr std::string_view kSuffix = ".spool";

std::string segment_name(std::int64_t number);  // sorts by number
std::optional<std::int64_t> segment_number(std::string_view name);
std::string header(std::int64_t number);
void frame(std::string& to, std::int64_t number, std::int64_t offset, std::string_view record);

// For small files: numbers with a checksum behind them. Nothing when it is wrong.
std::string checked(std::initializer_list<std::int64_t> numbers);
std::optional<std::vector<std::int64_t>> read_checked(std::string_view bytes);

// Walks the records of one segment.
class SegmentReader {
 public:
  SegmentReader(Disk& disk, std::int64_t number, std::int64_t offset = kHeaderBytes);
  // The next whole record, valid until the next call. What is damaged before it is passed over;
  // nothing where no more can be found.
  std::optional<std::string_view> next();
  std::int64_t offset() const { return offset_; }  // after the record given last
  bool torn() const { return offset_ < end_; }     // after next() gave nothing: bytes are left over
  std::int64_t passed_over() const { return passed_over_; }  // damaged records

 private:
  struct Frame {
    std::int64_t length;
    bool whole;
    std::string_view record;
  };
  std::string_view bytes_at(std::int64_t offset, std::int64_t size);
  std::optional<Frame> frame_at(std::int64_t offset);

  Disk& disk_;
  std::int64_t number_, offset_, end_;
  std::int64_t passed_over_ = 0;
  std::string name_, window_;
  std::int64_t window_at_ = 0;
};

}  // namespace flock::spool

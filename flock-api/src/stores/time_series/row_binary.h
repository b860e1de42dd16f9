// SPDX-License-Identifier: Apache-2.0
// ClickHouse's format RowBinary: the columns of a row one after another, little-endian, strings
// with a LEB128 length in front.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/error.h"

namespace flock::stores {

static_assert(std::endian::native == std::endian::little);

class RowWriter {
 public:
  // The type of the argument is the type of the column.
  template <class Number>
    requires std::integral<Number> || std::floating_point<Number>
  RowWriter& number(Number value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    bytes_.append(bytes, sizeof value);
    return *this;
  }
  RowWriter& text(std::string_view value) {
    std::size_t left = value.size();
    for (; left >= 0x80; left >>= 7) bytes_.push_back(static_cast<char>(left | 0x80));
    bytes_.push_back(static_cast<char>(left));
    bytes_.append(value);
    return *this;
  }
  void reserve(std::size_t size) { bytes_.reserve(size); }
  std::size_t size() const noexcept { return bytes_.size(); }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Throws Error{kProtocol} where bytes are missing.
class RowReader {
 public:
  explicit RowReader(std::string_view bytes) : left_(bytes) {}
  bool done() const noexcept { return left_.empty(); }
  template <class Number>
  Number number() {
    Number value;
    std::memcpy(&value, next(sizeof value).data(), sizeof value);
    return value;
  }
  std::string text() {
    std::uint64_t size = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = number<std::uint8_t>();
      if (shift > 56) throw cut();
      size |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) break;
    }
    return std::string(next(size));
  }

 private:
  static Error cut() { return Error(Code::kProtocol, "the rows are cut off or damaged"); }
  std::string_view next(std::uint64_t size) {
    if (size > left_.size()) throw cut();
    const std::string_view bytes = left_.substr(0, size);
    left_.remove_prefix(size);
    return bytes;
  }
  std::string_view left_;
};

}  // namespace flock::stores

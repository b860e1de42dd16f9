// SPDX-License-Identifier: Apache-2.0
// What a container writes, as the lines that people want to read. Pure: the same bytes give the
// same lines whenever they are read, so that they keep their numbers.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "flock/device/v1/device.pb.h"

namespace flock::agent {

inline constexpr std::size_t kLineBytes = 16 << 10;  // of one line, joined or not
inline constexpr int kJoinedLines = 64;

// Valid UTF-8 without NUL: what is not becomes U+FFFD. At most kLineBytes, cut between characters.
std::string clean_text(std::string_view text);
// From `"level":"warn"` of a JSON line, `level=warn`, or a word at the line's beginning.
device::v1::LogLine::Level guess_level(std::string_view text);
// Whether this line goes on with what `first` began: it is indented, or a part of a stack trace.
bool continues(std::string_view first, std::string_view line);

// Puts lines together from the pieces in a k8s-file log ("TIME stdout P|F TEXT"): long ones that
// the runtime split, and those that belong together and were written within 50 ms.
class LineAssembler {
 public:
  using Emit = std::function<void(device::v1::LogLine line)>;
  explicit LineAssembler(Emit emit) : emit_(std::move(emit)) {}

  // Reading begins here.
  void begin_at(std::int64_t offset) { read_to_ = emitted_to_ = offset; }
  // One piece, without its newline, that is at [begin, end) in its file.
  void take(std::string_view raw, std::int64_t begin, std::int64_t end);
  // Nothing more came: what was written more than 50 ms before `now_ms` is whole.
  void settle(std::int64_t now_ms);
  // Nothing more will come.
  void finish();
  // Something waits for settle().
  bool waiting() const { return open_.has_value(); }

  // Whoever reads from here on finds the lines after those that were emitted so far, and no other.
  // Nothing while lines are mixed; ask again after the next piece.
  std::optional<std::int64_t> clean_offset() const;

 private:
  struct Piece {
    std::int64_t begin = 0, end = 0, at_ms = 0, last_ms = 0;
    device::v1::LogLine::Source source = device::v1::LogLine::STDOUT;
    std::string text;
    bool truncated = false;
    int joined = 1;
  };
  void add_line(Piece piece);
  void close();

  Emit emit_;
  std::optional<Piece> partial_[2];  // of stdout and stderr, until the rest comes
  std::optional<Piece> open_;        // whole, but the next may go on with it
  std::int64_t last_ms_ = 0;
  std::int64_t read_to_ = 0, emitted_to_ = 0;  // ends of what was taken and of what was emitted
};

// Lets lines pass up to a rate, by the times at which they were written: read again, the same pass.
class RateLimit {
 public:
  // 0: no limit. A burst of five seconds' worth passes at once.
  RateLimit(std::int64_t lines_per_second, std::int64_t bytes_per_second)
      : lines_rate_(lines_per_second), bytes_rate_(bytes_per_second) {}
  bool pass(std::int64_t at_ms, std::size_t bytes);

  struct State {
    std::int64_t lines = -1, bytes = -1;  // thousandths; -1: full
    std::int64_t at_ms = 0;
  };
  const State& state() const { return state_; }
  void restore(State state) { state_ = state; }

 private:
  std::int64_t lines_rate_, bytes_rate_;
  State state_;
};

}  // namespace flock::agent

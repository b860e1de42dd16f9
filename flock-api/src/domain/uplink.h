// SPDX-License-Identifier: Apache-2.0
// What devices send, judged: topics, limits, numbers, and times of clocks that may be wrong.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "flock/device/v1/device.pb.h"

namespace flock::domain {

enum class Leaf { kState, kEvents, kTelemetry, kLogs };
std::string_view to_string(Leaf leaf);

struct Uplink {
  std::string_view device;  // a UUID; points into the topic
  Leaf leaf;
};
// Nothing for a topic that is not "devices/{id}/{leaf}".
std::optional<Uplink> parse_uplink(std::string_view topic);

inline constexpr std::size_t kUplinkBytes = 256 * 1024;  // of one message
inline constexpr int kServicesMost = 256;                // in one report or point
inline constexpr int kPointsMost = 2000;                 // in one batch
inline constexpr int kStreamsMost = 256;
inline constexpr int kLinesMost = 10'000;  // of all streams of a batch, gaps included
inline constexpr std::size_t kNameBytes = 255;
inline constexpr std::size_t kLineBytes = 64 * 1024;

// Parses `payload` into `message`. Answers why the message cannot be taken, for people; "" when it
// can.
std::string read(std::string_view payload, device::v1::ReportedState& message);
std::string read(std::string_view payload, device::v1::DeviceEvent& message);
std::string read(std::string_view payload, device::v1::TelemetryBatch& message);
std::string read(std::string_view payload, device::v1::LogBatch& message);

// The first `limit` bytes of `text` at most, cut between characters.
std::string shortened(std::string_view text, std::size_t limit);

// The times of one message, as they are stored. A clock that is more than a day ahead, or further
// behind than anything is kept, is wrong: then the message counts as written when it arrived, and
// the spacing inside it is kept.
class MessageTimes {
 public:
  // `newest_ms`: the latest time that the message names.
  MessageTimes(std::int64_t newest_ms, std::int64_t received_ms);
  std::int64_t at(std::int64_t device_ms) const;
  bool shifted() const noexcept { return shift_ != 0; }

 private:
  std::int64_t received_ms_, shift_ = 0;
};
std::int64_t newest_ms(const device::v1::TelemetryBatch& batch);
std::int64_t newest_ms(const device::v1::LogBatch& batch);

// `seq` begins at the device's Unix time in ms. A number that lies more than a day ahead of the
// server's time would hide all that comes after the clock is put right: it counts as if it began
// when it arrived.
std::int64_t sane_seq(std::int64_t seq, std::int64_t received_ms);

// A hash of a serialized ReportedState without its number and time: equal for two reports that say
// the same. Nothing for other bytes.
std::optional<std::uint64_t> shape_of(std::string_view state);

// How much one device may send, in rows of its time series: what a device that was away for days
// delivers at once, and a steady rate beside it.
struct Budget {
  double left = kBurst;
  std::int64_t at_ms = 0;
  static constexpr double kBurst = 1'000'000, kPerSecond = 2000;
};
// False when the device sent more than it may: nothing is taken then.
bool take(Budget& budget, std::size_t rows, std::int64_t now_ms);

}  // namespace flock::domain

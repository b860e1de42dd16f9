// SPDX-License-Identifier: Apache-2.0
#include "domain/uplink.h"

#include <algorithm>
#include <functional>

#include "base/id.h"

namespace flock::domain {
namespace {

constexpr std::int64_t kDay = 86'400'000;
constexpr std::int64_t kAhead = kDay, kBehind = 90 * kDay;
constexpr std::string_view kPrefix = "devices/";
constexpr std::size_t kUuid = 36;
constexpr int kSeqField = 2, kAtField = 10;  // of ReportedState

bool plausible(std::int64_t at_ms, std::int64_t received_ms) {
  return at_ms <= received_ms + kAhead && at_ms >= received_ms - kBehind;
}

template <class Message>
std::string parse(std::string_view payload, Message& message) {
  if (payload.size() > kUplinkBytes)
    return "it has more than " + std::to_string(kUplinkBytes) + " bytes";
  if (!message.ParseFromArray(payload.data(), static_cast<int>(payload.size())))
    return "it is not the message that belongs on this topic";
  return "";
}

std::string over(const char* what, std::size_t limit) {
  return "it has more than " + std::to_string(limit) + " " + what;
}

// Why these texts cannot be kept; PostgreSQL's hold no NUL.
std::string judge(const std::string& boot_id, std::initializer_list<std::string_view> texts) {
  if (boot_id.size() > kNameBytes) return over("bytes in its boot id", kNameBytes);
  constexpr const char* kNul = "a text in it holds a NUL character";
  if (boot_id.find('\0') != std::string::npos) return kNul;
  for (const std::string_view text : texts)
    if (text.find('\0') != std::string_view::npos) return kNul;
  return "";
}

// One protobuf varint; false at the end of the bytes.
bool varint(std::string_view& in, std::uint64_t& value) {
  value = 0;
  for (int shift = 0; shift < 64 && !in.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(in.front());
    in.remove_prefix(1);
    value |= std::uint64_t{byte & 0x7FU} << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

// Goes behind the value of a field of `wire` type.
bool skip(std::string_view& in, unsigned wire) {
  std::uint64_t size = 0;
  if (wire == 0) return varint(in, size);
  if (wire == 1) size = 8;
  if (wire == 5) size = 4;
  if (wire == 2 && !varint(in, size)) return false;
  if (wire == 3 || wire == 4 || wire > 5 || size > in.size()) return false;
  in.remove_prefix(static_cast<std::size_t>(size));
  return true;
}

}  // namespace

std::string_view to_string(Leaf leaf) {
  switch (leaf) {
    case Leaf::kState:
      return "state";
    case Leaf::kEvents:
      return "events";
    case Leaf::kTelemetry:
      return "telemetry";
    case Leaf::kLogs:
      return "logs";
  }
  return "";
}

std::optional<Uplink> parse_uplink(std::string_view topic) {
  if (!topic.starts_with(kPrefix) || topic.size() < kPrefix.size() + kUuid + 2) return std::nullopt;
  const std::string_view device = topic.substr(kPrefix.size(), kUuid);
  const std::string_view rest = topic.substr(kPrefix.size() + kUuid);
  if (rest.front() != '/' || !is_uuid(device)) return std::nullopt;
  for (const Leaf leaf : {Leaf::kState, Leaf::kTelemetry, Leaf::kLogs, Leaf::kEvents}) {
    if (rest.substr(1) == to_string(leaf)) return Uplink{device, leaf};
  }
  return std::nullopt;
}

std::string read(std::string_view payload, device::v1::ReportedState& message) {
  if (std::string fault = parse(payload, message); !fault.empty()) return fault;
  if (message.seq() <= 0) return "it has no number (seq), by which reports are put in order";
  if (message.services_size() > kServicesMost) return over("services", kServicesMost);
  return judge(message.boot_id(), {message.agent_version()});
}

std::string read(std::string_view payload, device::v1::DeviceEvent& message) {
  if (std::string fault = parse(payload, message); !fault.empty()) return fault;
  if (message.service().size() > kNameBytes) return over("bytes in a service's name", kNameBytes);
  if (message.command().command_id().size() > kNameBytes)
    return over("bytes in a command's id", kNameBytes);
  return judge(message.boot_id(), {message.detail(), message.command().message()});
}

std::string read(std::string_view payload, device::v1::TelemetryBatch& message) {
  if (std::string fault = parse(payload, message); !fault.empty()) return fault;
  if (message.points_size() > kPointsMost) return over("points", kPointsMost);
  for (const auto& point : message.points()) {
    if (point.services_size() > kServicesMost) return over("services in a point", kServicesMost);
    for (const auto& service : point.services()) {
      if (service.service().size() > kNameBytes)
        return over("bytes in a service's name", kNameBytes);
    }
  }
  return "";
}

std::string read(std::string_view payload, device::v1::LogBatch& message) {
  if (std::string fault = parse(payload, message); !fault.empty()) return fault;
  if (message.streams_size() > kStreamsMost) return over("streams", kStreamsMost);
  int lines = 0;
  for (const auto& stream : message.streams()) {
    lines += stream.lines_size() + stream.gaps_size();
    if (lines > kLinesMost) return over("lines", kLinesMost);
    if (stream.service().size() > kNameBytes) return over("bytes in a service's name", kNameBytes);
    for (const auto& line : stream.lines()) {
      if (line.number() <= 0) return "a line has no number";
      if (line.text().size() > kLineBytes) return over("bytes in a line", kLineBytes);
    }
    for (const auto& gap : stream.gaps()) {
      if (gap.first_number() <= 0 || gap.count() <= 0) return "a gap has no number or count";
    }
  }
  return "";
}

std::string shortened(std::string_view text, std::size_t limit) {
  if (text.size() <= limit) return std::string(text);
  while (limit > 0 && (text[limit] & 0xc0) == 0x80) --limit;
  return std::string(text.substr(0, limit));
}

MessageTimes::MessageTimes(std::int64_t newest_ms, std::int64_t received_ms)
    : received_ms_(received_ms) {
  if (!plausible(newest_ms, received_ms))
    shift_ = static_cast<std::int64_t>(static_cast<std::uint64_t>(received_ms) -
                                       static_cast<std::uint64_t>(newest_ms));
}

// Wraps around where a foreign number would overflow; what comes out is judged all the same.
std::int64_t MessageTimes::at(std::int64_t device_ms) const {
  const auto at = static_cast<std::int64_t>(static_cast<std::uint64_t>(device_ms) +
                                            static_cast<std::uint64_t>(shift_));
  return plausible(at, received_ms_) ? at : received_ms_;
}

std::int64_t newest_ms(const device::v1::TelemetryBatch& batch) {
  std::int64_t newest = INT64_MIN;
  for (const auto& point : batch.points()) newest = std::max(newest, point.at_ms());
  return newest;
}

std::int64_t newest_ms(const device::v1::LogBatch& batch) {
  std::int64_t newest = INT64_MIN;
  for (const auto& stream : batch.streams()) {
    for (const auto& line : stream.lines()) newest = std::max(newest, line.at_ms());
    for (const auto& gap : stream.gaps()) newest = std::max(newest, gap.to_ms());
  }
  return newest;
}

std::int64_t sane_seq(std::int64_t seq, std::int64_t received_ms) {
  return seq > received_ms + kAhead ? received_ms : seq;
}

std::optional<std::uint64_t> shape_of(std::string_view state) {
  std::uint64_t hash = 0;
  const auto mix = [&hash](std::string_view bytes) {
    if (bytes.empty()) return;
    hash = (hash ^ std::hash<std::string_view>()(bytes)) * 0x9E3779B97F4A7C15ULL;
  };
  // What lies between the two fields that do not count is hashed in one go each.
  std::string_view rest = state;
  const char* from = state.data();
  while (!rest.empty()) {
    const char* const field_at = rest.data();
    std::uint64_t tag = 0;
    if (!varint(rest, tag) || !skip(rest, tag & 7U)) return std::nullopt;
    const std::uint64_t field = tag >> 3U;
    if (field != kSeqField && field != kAtField) continue;
    mix({from, static_cast<std::size_t>(field_at - from)});
    from = rest.data();
  }
  mix({from, static_cast<std::size_t>(state.data() + state.size() - from)});
  return hash;
}

bool take(Budget& budget, std::size_t rows, std::int64_t now_ms) {
  const double passed = static_cast<double>(std::max<std::int64_t>(0, now_ms - budget.at_ms));
  budget.left = std::min(Budget::kBurst, budget.left + passed / 1000 * Budget::kPerSecond);
  budget.at_ms = now_ms;
  const auto wanted = static_cast<double>(rows);
  if (budget.left < wanted) return false;
  budget.left -= wanted;
  return true;
}

}  // namespace flock::domain

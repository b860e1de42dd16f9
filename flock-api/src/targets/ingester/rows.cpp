// SPDX-License-Identifier: Apache-2.0
#include "targets/ingester/rows.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <functional>

#include "domain/device_json.h"
#include "domain/metrics.h"
#include "domain/uplink.h"

namespace flock::targets::ingester {
namespace {

using device::v1::LogGap;
using device::v1::LogLine;

stores::Origin origin_of(const Source& source, const std::string& service) {
  return {source.org, source.fleet, source.device, service};
}

template <class Metrics, class Table>
void append_metrics(stores::Rows& rows, const stores::Origin& origin, std::int64_t at_ms,
                    const Metrics& values, const Table& table) {
  for (const auto& metric : table) {
    const std::optional<double> value = metric.read(values);
    if (!value || !std::isfinite(*value)) continue;
    rows.metrics.push_back({origin, std::string(metric.name), at_ms, *value});
  }
}

std::string words_of(const device::v1::HostCommandState& state) {
  const boost::json::object known = domain::host_command_json(state);
  std::string out = "host command " + std::string(known.at("step").as_string());
  if (state.has_exit_code()) out += ", exit code " + std::to_string(state.exit_code());
  return out;
}

std::string_view name_of(device::v1::ReportedState::Phase phase) {
  using State = device::v1::ReportedState;
  switch (phase) {
    case State::IDLE:
      return "IDLE";
    case State::DOWNLOADING:
      return "DOWNLOADING";
    case State::STARTING:
      return "STARTING";
    case State::SOAKING:
      return "SOAKING";
    case State::CONFIRMED:
      return "CONFIRMED";
    case State::FAILED:
      return "FAILED";
    default:
      return "UNKNOWN";
  }
}

}  // namespace

void append(stores::Rows& rows, const Source& source, const device::v1::TelemetryBatch& batch) {
  const domain::MessageTimes times(domain::newest_ms(batch), source.received_ms);
  for (const auto& point : batch.points()) {
    const std::int64_t at = times.at(point.at_ms());
    if (point.has_host())
      append_metrics(rows, origin_of(source, ""), at, point.host(), domain::host_metrics());
    for (const auto& service : point.services())
      append_metrics(rows, origin_of(source, service.service()), at, service,
                     domain::service_metrics());
  }
}

void append(stores::Rows& rows, const Source& source, const device::v1::LogBatch& batch) {
  const domain::MessageTimes times(domain::newest_ms(batch), source.received_ms);
  for (const auto& stream : batch.streams()) {
    stores::LogRow base;
    base.origin = origin_of(source, stream.service());
    base.epoch = stream.epoch();
    base.received_ms = source.received_ms;
    for (const LogLine& line : stream.lines()) {
      stores::LogRow& row = rows.logs.emplace_back(base);
      row.number = line.number();
      row.at_ms = times.at(line.at_ms());
      row.source = line.source();
      row.level = line.level();
      row.text = line.text();
      row.truncated = line.truncated();
    }
    for (const LogGap& gap : stream.gaps()) {
      stores::LogRow& row = rows.logs.emplace_back(base);
      row.number = gap.first_number();
      row.at_ms = times.at(gap.from_ms());
      row.count = gap.count();
      // 0 would be a line.
      row.gap = std::max<int>(gap.reason(), LogGap::RATE_LIMITED);
    }
  }
}

void append(stores::Rows& rows, const Source& source,
            const internal::v1::DevicePresence& presence) {
  rows.connectivity.push_back(
      {origin_of(source, ""), presence.at_ms(), presence.online(), presence.reason()});
}

void append(stores::Rows& rows, const Source& source, const device::v1::ReportedState& state) {
  stores::UpdateRow row;
  row.origin = origin_of(source, "");
  row.rollout = state.rollout_id();
  row.release = state.release_id();
  row.at_ms = domain::MessageTimes(state.at_ms(), source.received_ms).at(state.at_ms());
  row.phase = name_of(state.phase());
  row.error_code = state.error_code();
  row.detail = state.error();
  if (row.detail.empty() && state.has_host_command()) row.detail = words_of(state.host_command());
  rows.updates.push_back(std::move(row));
}

std::size_t rows_of(const device::v1::TelemetryBatch& batch) {
  std::size_t rows = 0;
  for (const auto& point : batch.points())
    rows += (point.has_host() ? domain::host_metrics().size() : 0) +
            static_cast<std::size_t>(point.services_size()) * domain::service_metrics().size();
  return rows;
}

std::size_t rows_of(const device::v1::LogBatch& batch) {
  int rows = 0;
  for (const auto& stream : batch.streams()) rows += stream.lines_size() + stream.gaps_size();
  return static_cast<std::size_t>(rows);
}

std::uint64_t step_of(const device::v1::ReportedState& state) {
  const std::string step = std::to_string(state.desired_version()) + " " +
                           std::to_string(state.phase()) + " " + state.rollout_id() + " " +
                           state.release_id() + " " + state.error_code() + " " +
                           std::to_string(state.host_command().step());
  return std::hash<std::string>()(step);
}

device::v1::LogBatch only_gaps(const device::v1::LogBatch& batch, LogGap::Reason why) {
  device::v1::LogBatch out;
  for (const auto& stream : batch.streams()) {
    auto* kept = out.add_streams();
    kept->set_service(stream.service());
    kept->set_epoch(stream.epoch());
    *kept->mutable_gaps() = stream.gaps();
    LogGap* gap = nullptr;
    for (const LogLine& line : stream.lines()) {
      if (gap == nullptr || line.number() != gap->first_number() + gap->count()) {
        gap = kept->add_gaps();
        gap->set_first_number(line.number());
        gap->set_reason(why);
        gap->set_from_ms(line.at_ms());
      }
      gap->set_count(gap->count() + 1);
      gap->set_to_ms(line.at_ms());
    }
  }
  return out;
}

void merge_gaps(device::v1::LogBatch& gaps, const device::v1::LogBatch& more) {
  for (const auto& stream : more.streams()) {
    const auto same = [&](const device::v1::LogStream& other) {
      return other.service() == stream.service() && other.epoch() == stream.epoch();
    };
    auto* const streams = gaps.mutable_streams();
    auto at = std::ranges::find_if(*streams, same);
    if (at == streams->end()) {
      *gaps.add_streams() = stream;
      continue;
    }
    for (const LogGap& gap : stream.gaps()) {
      LogGap* const last = at->gaps().empty() ? nullptr : at->mutable_gaps(at->gaps_size() - 1);
      const bool touches = last != nullptr && last->reason() == gap.reason() &&
                           last->first_number() + last->count() == gap.first_number();
      if (!touches) {
        *at->add_gaps() = gap;
        continue;
      }
      last->set_count(last->count() + gap.count());
      last->set_to_ms(gap.to_ms());
    }
  }
}

internal::v1::SpooledMessage spooled(const Source& source, internal::v1::SpooledMessage::Kind kind,
                                     std::string payload) {
  internal::v1::SpooledMessage message;
  message.set_org_id(source.org);
  message.set_fleet_id(source.fleet);
  message.set_device_id(source.device);
  message.set_received_ms(source.received_ms);
  message.set_kind(kind);
  message.set_payload(std::move(payload));
  return message;
}

namespace {

template <class Payload>
bool append_payload(stores::Rows& rows, const Source& source, const std::string& bytes) {
  Payload payload;
  if (!payload.ParseFromString(bytes)) return false;
  append(rows, source, payload);
  return true;
}

}  // namespace

bool append(stores::Rows& rows, const internal::v1::SpooledMessage& message) {
  using Kind = internal::v1::SpooledMessage;
  const Source source{message.org_id(), message.fleet_id(), message.device_id(),
                      message.received_ms()};
  switch (message.kind()) {
    case Kind::TELEMETRY:
      return append_payload<device::v1::TelemetryBatch>(rows, source, message.payload());
    case Kind::LOGS:
      return append_payload<device::v1::LogBatch>(rows, source, message.payload());
    case Kind::PRESENCE:
      return append_payload<internal::v1::DevicePresence>(rows, source, message.payload());
    case Kind::UPDATE:
      return append_payload<device::v1::ReportedState>(rows, source, message.payload());
    default:
      return false;
  }
}

}  // namespace flock::targets::ingester

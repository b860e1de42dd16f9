// SPDX-License-Identifier: Apache-2.0
#include "stores/time_series/rules.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/error.h"
#include "stores/time_series/row_binary.h"

namespace flock::stores {
namespace {

// Devices keep what they cannot send for weeks, and no clock is right to the second.
constexpr std::int64_t kPastDays = 45, kFutureDays = 1;
constexpr std::size_t kMaxList = 10'000, kMaxLimit = 1'000'000, kMaxText = 4096;

void check_list(const std::vector<std::string>& list, const char* what) {
  if (list.size() > kMaxList)
    throw Error(Code::kInvalidArgument, "too many of one kind in one question")
        .with("what", what)
        .with("limit", std::to_string(kMaxList));
}

}  // namespace

std::uint32_t filed_day(std::int64_t at_ms, std::int64_t now_ms) {
  const std::int64_t today = now_ms / kDayMs, day = at_ms / kDayMs;
  const bool stray = at_ms < 0 || day < today - kPastDays || day > today + kFutureDays;
  return static_cast<std::uint32_t>(stray ? kStrayDays + today : day);
}

bool expired(std::uint32_t day, std::int64_t before_ms) {
  return day % kStrayDays < before_ms / kDayMs;
}

Window bounded(std::int64_t from_ms, std::int64_t to_ms) {
  return {std::max<std::int64_t>(from_ms, 0), std::min(to_ms, kEndOfTime)};
}

LogPlace place_of(const LogRow& row) {
  return {row.at_ms, row.origin.device, row.origin.service, row.epoch, row.number, row.gap};
}

std::string cursor_of(const LogRow& row) {
  RowWriter out;
  out.number(row.at_ms).text(row.origin.device).text(row.origin.service);
  out.number(row.epoch).number(row.number).number(static_cast<std::uint8_t>(row.gap));
  return to_base64url(out.take());
}

LogPlace parse_cursor(std::string_view cursor) {
  const Error foreign(Code::kInvalidArgument, "page_token is not one of ours");
  const auto bytes = from_base64url(cursor);
  if (!bytes) throw foreign;
  try {
    RowReader in(*bytes);
    LogPlace place;
    place.at_ms = in.number<std::int64_t>();
    place.device = in.text();
    place.service = in.text();
    place.epoch = in.number<std::int64_t>();
    place.number = in.number<std::int64_t>();
    place.gap = in.number<std::uint8_t>();
    if (in.done()) return place;
  } catch (const Error&) {
    // The same answer for all that is not ours.
  }
  throw foreign;
}

void check(const Subject& subject, std::size_t limit) {
  if (subject.org.empty())
    throw Error(Code::kInvalidArgument, "time series are asked for by organization");
  check_list(subject.fleets, "fleets");
  check_list(subject.devices, "devices");
  check_list(subject.services, "services");
  if (limit == 0 || limit > kMaxLimit)
    throw Error(Code::kInvalidArgument, "the limit must be from 1 to " + std::to_string(kMaxLimit));
}

void check(const MetricQuery& query) {
  check(query.subject, query.limit);
  check_list(query.names, "names");
  if (query.step < Duration(0))
    throw Error(Code::kInvalidArgument, "the step must not be negative");
}

void check(const SummaryQuery& query) {
  check(Subject{query.org, {}, {}, {}}, 1);
  if (query.devices.size() > kMaxList)
    throw Error(Code::kInvalidArgument, "too many devices").with("limit", std::to_string(kMaxList));
}

void check(const OperatorQuery& query) {
  check(Subject{query.org, {}, {}, {}}, 1);
  check_list(query.reached, "devices reached");
  check_list(query.waiting, "devices that wait");
}

void check(const LogQuery& query) {
  check(query.subject, query.limit);
  if (query.contains.size() > kMaxText)
    throw Error(Code::kInvalidArgument, "the text to find is too long")
        .with("limit", std::to_string(kMaxText));
}

}  // namespace flock::stores

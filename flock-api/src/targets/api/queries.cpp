// SPDX-License-Identifier: Apache-2.0
#include "targets/api/queries.h"

#include <algorithm>
#include <cmath>

#include "stores/postgres/live_statements.h"
#include "targets/api/devices.h"

namespace flock::targets::api {
namespace {

constexpr const char* kNoFleet = "00000000-0000-0000-0000-000000000000";
constexpr Duration kMostOffset = std::chrono::days(36'500);

}  // namespace

Error parameter_fault(std::string_view name, std::string detail) {
  return Error(Code::kInvalidArgument, "a parameter of the query cannot be read")
      .problems({{"?" + std::string(name), "invalid", std::move(detail)}});
}

std::vector<std::string> read_list(const net::Request& request, std::string_view name,
                                   std::size_t most) {
  std::vector<std::string> out;
  for (const auto& [key, value] : request.query_items()) {
    if (key != name) continue;
    for (std::size_t at = 0; at <= value.size();) {
      const std::size_t end = std::min(value.find(',', at), value.size());
      if (end > at) out.push_back(value.substr(at, end - at));
      at = end + 1;
    }
  }
  for (const std::string& item : out) {
    if (item.size() > 255) throw parameter_fault(name, "each of at most 255 bytes");
  }
  if (out.size() > most) throw parameter_fault(name, "at most " + std::to_string(most));
  return out;
}

TimePoint read_instant(const net::Request& request, std::string_view name, TimePoint now,
                       TimePoint fallback) {
  const auto text = request.query(name);
  if (!text || text->empty()) return fallback;
  try {
    if (text->front() != '-' && text->front() != '+') return parse_rfc3339(*text);
    const Duration offset = parse_duration(text->substr(1));
    if (offset <= kMostOffset) return text->front() == '-' ? now - offset : now + offset;
  } catch (const Error&) {
  }
  throw parameter_fault(name, "2026-11-24T10:00:00Z, or relative as -1h");
}

TimeRange read_range(const net::Request& request, Duration span, Duration most) {
  const TimePoint now = system_clock().now();
  TimeRange range;
  range.to = read_instant(request, "to", now, now);
  range.from = read_instant(request, "from", now, range.to - span);
  if (range.from >= range.to) throw parameter_fault("from", "must be before `to`");
  if (range.to - range.from > most)
    throw parameter_fault("from", "at most " + to_string(most) + " before `to`");
  return range;
}

Task<std::vector<std::string>> find_device_ids(Call& call, std::vector<std::string> names) {
  std::vector<std::string> ids;
  for (const std::string& name : names)
    ids.push_back(text_of(co_await find_device(call, name), "id"));
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  co_return ids;
}

Task<stores::Subject> read_subject(Call& call) {
  stores::Subject subject;
  subject.org = call.org();
  subject.fleets = co_await find_fleets(call, read_list(call.request, "fleet", kMostNames));
  limit_to_caller(call, subject);
  subject.devices = co_await find_device_ids(call, read_list(call.request, "device", kMostNames));
  subject.services = read_list(call.request, "service", kMostNames);
  co_return subject;
}

void limit_to_caller(const Call& call, stores::Subject& subject) {
  if (!subject.fleets.empty() || !call.who.fleets) return;
  subject.fleets = *call.who.fleets;
  // An empty list would be every fleet.
  if (subject.fleets.empty()) subject.fleets.push_back(kNoFleet);
}

Task<std::unordered_map<std::string, std::string>> device_names(Call& call,
                                                                std::vector<std::string> ids) {
  std::unordered_map<std::string, std::string> names;
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  if (ids.empty()) co_return names;
  const auto rows = co_await call.query(sql::kDeviceNames, Params().text(call.org()).texts(ids));
  for (const Row& row : rows.rows) names[row.text("id")] = row.text("name");
  co_return names;
}

bj::value number_json(double value) {
  if (!std::isfinite(value)) return nullptr;
  if (std::abs(value) < 9e15 && std::trunc(value) == value) return static_cast<std::int64_t>(value);
  return value;
}

}  // namespace flock::targets::api

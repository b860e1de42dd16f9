// SPDX-License-Identifier: Apache-2.0
// One device as it is now: what PostgreSQL and the live state say, with what the time series add.
// They may be away; the rest is answered all the same.
#include <algorithm>

#include "async/deadline.h"
#include "base/log.h"
#include "stores/postgres/command_statements.h"
#include "targets/api/devices.h"
#include "targets/api/queries.h"

namespace flock::targets::api {
namespace {

constexpr Duration kPatience{1500}, kFresh{900'000};
constexpr Duration kSpan = std::chrono::days(1), kMostSpan = std::chrono::days(400);

// False when the store of time series does not answer in time.
Task<bool> if_there(Task<void> work) {
  try {
    co_await with_deadline(std::move(work), kPatience, "reading time series");
    co_return true;
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    const bool away = error.code() == Code::kUnavailable || error.code() == Code::kTimeout ||
                      error.code() == Code::kTooLarge;
    if (!away) throw;
    log::debug("a device is shown without its time series", error);
  }
  co_return false;
}

stores::Subject subject_of(const Call& call, const bj::object& device) {
  stores::Subject subject;
  subject.org = call.org();
  subject.devices = {text_of(device, "id")};
  limit_to_caller(call, subject);
  return subject;
}

Task<void> add_metrics(Call& call, bj::object& device) {
  stores::MetricQuery query;
  query.subject = subject_of(call, device);
  const TimePoint now = system_clock().now();
  query.from_ms = to_unix_ms(now - kFresh);
  query.to_ms = to_unix_ms(now + kFresh);  // a device's clock may be ahead
  const auto points = co_await call.context.parts.time_series.latest(std::move(query));
  if (!points.empty()) device["metrics"] = latest_json(points);
}

// Answers without the time series, unless they are asked for: it is asked for often.
Task<net::Reply> get_device(Call& call) {
  allow_query(call.request, {"include"});
  bool metrics = false;
  for (const std::string& part : read_list(call.request, "include", 1)) {
    if (part != "metrics") throw parameter_fault("include", "can be metrics");
    metrics = true;
  }
  const std::string& id = call.parameter("id");
  if (!metrics && is_uuid(id)) {
    const FoundDevicePtr found = co_await call.context.devices.find(call.scope(), id);
    if (found) co_return Call::answer_text(200, found->body, found->etag);
  }
  bj::object device = co_await find_device(call, id);
  if (metrics) co_await if_there(add_metrics(call, device));
  co_return call.answer(200, device, kDevicePassing);
}

// --- What happened to it
// ----------------------------------------------------------------------------

bj::object event_of(TimePoint at, std::string type, bj::object detail) {
  return {{"at", to_rfc3339(at)}, {"type", std::move(type)}, {"detail", std::move(detail)}};
}

Task<void> add_stored(Call& call, const std::string& device, std::int64_t limit, bj::array& out) {
  const auto history = co_await call.query(
      sql::kDeviceHistory, Params().text(call.org()).text(device).integer(0).integer(limit));
  for (const Row& row : history.rows) {
    bj::object detail = json::parse(row.text("detail")).as_object();
    detail["actor"] = row.text("actor");
    out.push_back(event_of(row.time("at"), row.text("kind"), std::move(detail)));
  }
  const auto commands = co_await call.query(
      sql::kCommandList, Params().text(call.org()).text(device).text(std::string()).integer(limit));
  for (const Row& row : commands.rows) {
    bj::object detail{{"command_id", row.text("id")},
                      {"command", row.text("kind")},
                      {"state", row.text("state")},
                      {"actor", row.text("actor")}};
    if (!row.text("service").empty()) detail["service"] = row.text("service");
    if (!row.text("message").empty()) detail["message"] = row.text("message");
    out.push_back(event_of(row.time("changed_at"), "COMMAND", std::move(detail)));
  }
}

Task<void> add_series(Call& call, stores::Subject subject, TimeRange range, std::int64_t limit,
                      bj::array& out) {
  stores::TimeSeries& series = call.context.parts.time_series;
  const std::int64_t from = to_unix_ms(range.from), to = to_unix_ms(range.to);
  const auto most = static_cast<std::size_t>(limit);
  const auto connectivity = co_await series.connectivity(subject, from, to, most);
  for (const auto& row : connectivity)
    out.push_back(event_of(device_time(row.at_ms), row.online ? "ONLINE" : "OFFLINE",
                           {{"reason", row.reason}}));
  const auto updates = co_await series.updates(subject, from, to, most);
  for (const auto& row : updates) {
    bj::object detail{{"phase", row.phase}, {"release_id", row.release}};
    if (!row.rollout.empty()) detail["rollout_id"] = row.rollout;
    if (!row.error_code.empty()) detail["error_code"] = row.error_code;
    if (!row.detail.empty()) detail["message"] = row.detail;
    out.push_back(event_of(device_time(row.at_ms), "UPDATE", std::move(detail)));
  }
}

// Newest first, of several sources; one of them may be away.
Task<net::Reply> list_events(Call& call) {
  allow_query(call.request, {"from", "to", "page_size"});
  const TimeRange range = read_range(call.request, kSpan, kMostSpan);
  const std::int64_t limit = read_page_size(call.request);
  const bj::object device = co_await find_device(call, call.parameter("id"));
  bj::array stored, items;
  co_await add_stored(call, text_of(device, "id"), limit, stored);
  for (bj::value& event : stored) {
    const TimePoint at = parse_rfc3339(event.at("at").as_string());
    if (at >= range.from && at < range.to) items.push_back(std::move(event));
  }
  bj::array series;
  const bool whole =
      co_await if_there(add_series(call, subject_of(call, device), range, limit, series));
  for (bj::value& event : series) items.push_back(std::move(event));
  std::sort(items.begin(), items.end(), [](const bj::value& a, const bj::value& b) {
    return a.at("at").as_string() > b.at("at").as_string();
  });
  if (items.size() > static_cast<std::size_t>(limit)) items.resize(static_cast<std::size_t>(limit));
  co_return json_reply(200, bj::object{{"items", std::move(items)}, {"incomplete", !whole}});
}

}  // namespace

void add_device_live_routes(Context& c) {
  constexpr auto kReads = Permission::kDevicesRead;
  c.add(allowed("getDevice", "GET", "/v1/devices/{id}", kReads), get_device);
  c.add(allowed("listDeviceEvents", "GET", "/v1/devices/{id}/events", kReads), list_events);
}

}  // namespace flock::targets::api

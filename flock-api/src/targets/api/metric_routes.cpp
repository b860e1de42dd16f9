// SPDX-License-Identifier: Apache-2.0
// Metrics of devices and their services over time, and the newest of each.
#include <algorithm>
#include <map>
#include <tuple>

#include "targets/api/devices.h"
#include "targets/api/queries.h"

namespace flock::targets::api {
namespace {

constexpr Duration kSpan{3'600'000}, kMostSpan = std::chrono::days(400), kFresh{900'000};
constexpr std::int64_t kAutoPoints = 500, kMostPoints = 2000;
constexpr std::size_t kMostRows = 50'000, kMostMetrics = 50;

// The narrowest of the usual widths that gives at most kAutoPoints buckets, the cut ones at both
// ends counted.
Duration auto_step(Duration span) {
  for (const std::int64_t seconds :
       {1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10'800, 21'600, 43'200}) {
    if (span / Duration(seconds * 1000) + 2 <= kAutoPoints) return Duration(seconds * 1000);
  }
  return std::chrono::days(1);
}

Duration read_step(const net::Request& request, Duration span) {
  const std::string text = request.query("step").value_or("auto");
  if (text == "auto" || text.empty()) return auto_step(span);
  Duration step{0};
  try {
    step = parse_duration(text);
  } catch (const Error&) {
  }
  if (step < Duration(1000)) throw parameter_fault("step", "auto, or 1s or more: 30s, 5m");
  if (span / step > kMostPoints)
    throw parameter_fault("step", "that is more than 2000 points; take a wider step, or auto");
  return step;
}

bj::object series_json(const stores::MetricPoint& point, const std::string& device_name) {
  bj::object out{{"device", {{"id", point.device}, {"name", device_name}}}};
  if (!point.service.empty()) out["service"] = point.service;
  out["name"] = point.name;
  out["points"] = bj::array();
  return out;
}

// One entry for each device, service and metric, its points in order of time.
Task<bj::array> series_of(Call& call, std::vector<stores::MetricPoint> points) {
  std::sort(points.begin(), points.end(), [](const auto& a, const auto& b) {
    return std::tie(a.device, a.service, a.name, a.at_ms) <
           std::tie(b.device, b.service, b.name, b.at_ms);
  });
  std::vector<std::string> ids;
  for (const auto& point : points) ids.push_back(point.device);
  const auto names = co_await device_names(call, std::move(ids));
  bj::array out;
  const stores::MetricPoint* before = nullptr;
  for (const auto& point : points) {
    const auto name = names.find(point.device);
    if (before == nullptr || std::tie(before->device, before->service, before->name) !=
                                 std::tie(point.device, point.service, point.name))
      out.push_back(series_json(point, name == names.end() ? "" : name->second));
    before = &point;
    out.back().as_object()["points"].as_array().push_back(
        bj::object{{"at", to_rfc3339(device_time(point.at_ms))},
                   {"min", number_json(point.min)},
                   {"max", number_json(point.max)},
                   {"avg", number_json(point.avg)},
                   {"count", point.count}});
  }
  co_return out;
}

Task<net::Reply> answer_range(Call& call, stores::Subject subject) {
  const TimeRange range = read_range(call.request, kSpan, kMostSpan);
  stores::MetricQuery query;
  query.subject = std::move(subject);
  query.names = read_list(call.request, "names", kMostMetrics);
  query.from_ms = to_unix_ms(range.from);
  query.to_ms = to_unix_ms(range.to);
  query.step = read_step(call.request, range.to - range.from);
  query.limit = kMostRows;
  const Duration step = query.step;
  auto points = co_await call.context.parts.time_series.range(std::move(query));
  const bool truncated = points.size() >= kMostRows;
  co_return json_reply(200, bj::object{{"from", to_rfc3339(range.from)},
                                       {"to", to_rfc3339(range.to)},
                                       {"step", to_string(step)},
                                       {"truncated", truncated},
                                       {"series", co_await series_of(call, std::move(points))}});
}

Task<net::Reply> list_metrics(Call& call) {
  allow_query(call.request, {"fleet", "device", "service", "names", "from", "to", "step"});
  co_return co_await answer_range(call, co_await read_subject(call));
}

Task<net::Reply> device_metrics(Call& call) {
  allow_query(call.request, {"service", "names", "from", "to", "step"});
  stores::Subject subject = co_await read_subject(call);
  subject.devices = {text_of(co_await find_device(call, call.parameter("id")), "id")};
  co_return co_await answer_range(call, std::move(subject));
}

Task<net::Reply> latest_metrics(Call& call) {
  allow_query(call.request, {"fleet", "device", "service", "names"});
  stores::MetricQuery query;
  query.subject = co_await read_subject(call);
  query.names = read_list(call.request, "names", kMostMetrics);
  query.limit = kMostRows;
  const TimePoint now = system_clock().now();
  query.from_ms = to_unix_ms(now - kFresh);
  query.to_ms = to_unix_ms(now + kFresh);  // a device's clock may be ahead
  const auto points = co_await call.context.parts.time_series.latest(std::move(query));
  std::map<std::string, std::vector<stores::MetricPoint>> by_device;
  std::vector<std::string> ids;
  for (const auto& point : points) {
    if (by_device[point.device].empty()) ids.push_back(point.device);
    by_device[point.device].push_back(point);
  }
  const auto names = co_await device_names(call, ids);
  bj::array items;
  for (const auto& [id, own] : by_device) {
    const auto name = names.find(id);
    if (name == names.end()) continue;  // not the caller's
    bj::object item{{"device", {{"id", id}, {"name", name->second}}}};
    item["metrics"] = latest_json(own);
    items.push_back(std::move(item));
  }
  co_return json_reply(
      200, bj::object{{"items", std::move(items)}, {"truncated", points.size() >= kMostRows}});
}

}  // namespace

bj::object latest_json(const std::vector<stores::MetricPoint>& points) {
  bj::object host, services;
  std::int64_t newest = 0;
  for (const auto& point : points) {
    newest = std::max(newest, point.at_ms);
    if (point.service.empty()) {
      host[point.name] = number_json(point.avg);
    } else {
      bj::value& service = services[point.service];
      if (!service.is_object()) service = bj::object();
      service.as_object()[point.name] = number_json(point.avg);
    }
  }
  return {{"at", to_rfc3339(device_time(newest))},
          {"host", std::move(host)},
          {"services", std::move(services)}};
}

void add_metric_routes(Context& c) {
  constexpr auto kReads = Permission::kDevicesRead;
  c.add(allowed("listMetrics", "GET", "/v1/metrics", kReads), list_metrics);
  c.add(allowed("getLatestMetrics", "GET", "/v1/metrics/latest", kReads), latest_metrics);
  c.add(allowed("getDeviceMetrics", "GET", "/v1/devices/{id}/metrics", kReads), device_metrics);
}

}  // namespace flock::targets::api

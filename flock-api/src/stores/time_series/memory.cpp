// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <tuple>

#include "base/error.h"
#include "stores/time_series/rules.h"
#include "stores/time_series/time_series.h"

namespace flock::stores {
namespace {

constexpr std::size_t kMaxRows = 1'000'000;

bool among(const std::vector<std::string>& list, const std::string& value) {
  return list.empty() || std::ranges::find(list, value) != list.end();
}

bool is_of(const Origin& origin, const Subject& subject) {
  return origin.org == subject.org && among(subject.fleets, origin.fleet) &&
         among(subject.devices, origin.device);
}

bool is_in(std::int64_t at_ms, std::int64_t from_ms, std::int64_t to_ms) {
  const Window time = bounded(from_ms, to_ms);
  return at_ms >= time.from_ms && at_ms < time.to_ms;
}

// Rows by a key that begins with their time, each with the day it is filed under.
template <class Key, class Row>
class Table {
 public:
  struct Filed {
    std::uint32_t day;
    Row row;
  };
  void put(Key key, Row row, std::int64_t now_ms) {
    const std::uint32_t day = filed_day(row.at_ms, now_ms);
    rows_.try_emplace(std::move(key), Filed{day, std::move(row)});
    if (rows_.size() > kMaxRows) rows_.erase(rows_.begin());
  }
  void expire(const std::vector<std::string>& orgs, std::int64_t before_ms) {
    std::erase_if(rows_, [&](const auto& item) {
      const Filed& filed = item.second;
      return among(orgs, filed.row.origin.org) && expired(filed.day, before_ms);
    });
  }
  const std::map<Key, Filed>& rows() const noexcept { return rows_; }

 private:
  std::map<Key, Filed> rows_;
};

using Strings = std::tuple<std::string, std::string, std::string, std::string>;
using Key = std::pair<std::int64_t, Strings>;

bool passes(const LogRow& row, const LogQuery& query) {
  if (!is_of(row.origin, query.subject) || !among(query.subject.services, row.origin.service))
    return false;
  return row.gap != 0 ||
         (row.level >= query.min_level && row.text.find(query.contains) != std::string::npos);
}

// The rows of a table in its order, the newest `limit` of those that pass.
template <class Table>
auto newest(const Table& table, const Subject& subject, std::int64_t from_ms, std::int64_t to_ms,
            std::size_t limit) {
  std::vector<decltype(table.rows().begin()->second.row)> out;
  for (auto at = table.rows().rbegin(); at != table.rows().rend() && out.size() < limit; ++at) {
    const auto& row = at->second.row;
    if (is_of(row.origin, subject) && is_in(row.at_ms, from_ms, to_ms)) out.push_back(row);
  }
  std::ranges::reverse(out);
  return out;
}

class MemoryTimeSeries final : public TimeSeries {
 public:
  explicit MemoryTimeSeries(const Clock& clock) : clock_(clock) {}

  Task<void> insert(Rows rows) override {
    const std::int64_t now = to_unix_ms(clock_.now());
    const std::lock_guard lock(mutex_);
    for (MetricRow& row : rows.metrics) {
      if (!std::isfinite(row.value)) continue;
      const Origin& o = row.origin;
      Key key{row.at_ms, {o.org, o.device, o.service, row.name}};
      metrics_.put(std::move(key), std::move(row), now);
    }
    for (LogRow& row : rows.logs) {
      std::pair<LogPlace, std::string> key{place_of(row), row.origin.org};
      logs_.put(std::move(key), std::move(row), now);
    }
    for (ConnectivityRow& row : rows.connectivity) {
      Key key{row.at_ms, {row.origin.org, row.origin.device, row.online ? "1" : "0", ""}};
      connectivity_.put(std::move(key), std::move(row), now);
    }
    for (UpdateRow& row : rows.updates) {
      Key key{row.at_ms, {row.origin.org, row.origin.device, row.rollout, row.phase}};
      updates_.put(std::move(key), std::move(row), now);
    }
    co_return;
  }

  Task<std::vector<MetricPoint>> latest(MetricQuery query) override {
    check(query);
    const std::lock_guard lock(mutex_);
    if (query.to_ms == 0) query.to_ms = INT64_MAX;
    std::map<Strings, MetricPoint> found;  // in time's order, so the last one stays
    each(query, [&](const MetricRow& row) {
      found[series(row)] = {row.origin.device, row.origin.service, row.name,  row.at_ms,
                            row.value,         row.value,          row.value, 1};
    });
    co_return first(found, query.limit);
  }

  Task<std::vector<MetricPoint>> range(MetricQuery query) override {
    check(query);
    const std::lock_guard lock(mutex_);
    const std::int64_t step = std::max<std::int64_t>(query.step.count(), 1);
    std::map<std::pair<Strings, std::int64_t>, MetricPoint> found;
    each(query, [&](const MetricRow& row) {
      const std::int64_t bucket = row.at_ms / step * step;
      const auto [at, fresh] = found.try_emplace(
          {series(row), bucket}, MetricPoint{row.origin.device, row.origin.service, row.name,
                                             bucket, row.value, row.value, 0, 0});
      MetricPoint& point = at->second;
      point.min = std::min(point.min, row.value);
      point.max = std::max(point.max, row.value);
      point.avg += row.value;  // the sum, until all are there
      ++point.count;
    });
    for (auto& [key, point] : found) point.avg /= static_cast<double>(point.count);
    co_return first(found, query.limit);
  }

  Task<Summary> summary(SummaryQuery query) override {
    check(query);
    const std::lock_guard lock(mutex_);
    const std::map<std::string, std::int64_t> since(query.devices.begin(), query.devices.end());
    std::set<std::string> devices;
    std::vector<double> values;
    const MetricQuery all{
        {query.org, {}, {}, {query.service}}, {query.name}, query.from_ms, query.to_ms};
    each(all, [&](const MetricRow& row) {
      const auto found = since.find(row.origin.device);
      if (found == since.end() || row.at_ms < found->second) return;
      devices.insert(row.origin.device);
      values.push_back(row.value);
    });
    Summary out;
    if (values.empty()) co_return out;
    std::ranges::sort(values);
    out.devices = static_cast<std::int64_t>(devices.size());
    for (const double value : values) out.avg += value / static_cast<double>(values.size());
    out.max = values.back();
    // As ClickHouse's quantileExact counts.
    out.p95 = values.at(values.size() * 95 / 100);
    co_return out;
  }

  Task<OperatorAnswer> ask(OperatorQuery query) override {
    check(query);
    throw Error(Code::kUnsupported, "queries need ClickHouse, and there is none (clickhouse.kind)");
    co_return OperatorAnswer{};
  }

  Task<LogPage> logs(LogQuery query) override {
    check(query);
    const std::lock_guard lock(mutex_);
    std::optional<LogPlace> after;
    if (!query.after.empty()) after = parse_cursor(query.after);
    LogPage page;
    const auto take = [&](const LogRow& row) {  // false: the page is full
      if (!is_in(row.at_ms, query.from_ms, query.to_ms) || !passes(row, query)) return true;
      if (after && (query.newest_first ? place_of(row) >= *after : place_of(row) <= *after))
        return true;
      if (page.rows.size() == query.limit) {
        page.next = cursor_of(page.rows.back());
        return false;
      }
      page.rows.push_back(row);
      return true;
    };
    const auto& all = logs_.rows();
    if (query.newest_first) {
      for (auto at = all.rbegin(); at != all.rend() && take(at->second.row); ++at) {
      }
    } else {
      for (auto at = all.begin(); at != all.end() && take(at->second.row); ++at) {
      }
    }
    co_return page;
  }

  Task<std::vector<LogRow>> arrived(LogQuery query, std::int64_t received_ms) override {
    check(query);
    const std::lock_guard lock(mutex_);
    std::vector<LogRow> out;
    for (const auto& [key, filed] : logs_.rows()) {
      if (filed.row.received_ms >= received_ms && passes(filed.row, query))
        out.push_back(filed.row);
    }
    std::ranges::sort(out, {}, [](const LogRow& row) {
      const Origin& o = row.origin;
      return std::tuple(row.received_ms, o.device, o.service, row.epoch, row.number, row.gap);
    });
    if (out.size() > query.limit) out.resize(query.limit);
    co_return out;
  }

  Task<std::vector<ConnectivityRow>> connectivity(Subject subject, std::int64_t from_ms,
                                                  std::int64_t to_ms, std::size_t limit) override {
    check(subject, limit);
    const std::lock_guard lock(mutex_);
    co_return newest(connectivity_, subject, from_ms, to_ms, limit);
  }

  Task<std::vector<UpdateRow>> updates(Subject subject, std::int64_t from_ms, std::int64_t to_ms,
                                       std::size_t limit) override {
    check(subject, limit);
    const std::lock_guard lock(mutex_);
    co_return newest(updates_, subject, from_ms, to_ms, limit);
  }

  Task<void> expire(Expiry expiry) override {
    const std::lock_guard lock(mutex_);
    logs_.expire(expiry.orgs, expiry.logs_before_ms);
    metrics_.expire(expiry.orgs, expiry.telemetry_before_ms);
    connectivity_.expire(expiry.orgs, expiry.telemetry_before_ms);
    updates_.expire(expiry.orgs, expiry.telemetry_before_ms);
    co_return;
  }

  Task<void> ping() override { co_return; }

 private:
  static Strings series(const MetricRow& row) {
    return {row.origin.device, row.origin.service, row.name, ""};
  }

  template <class Visit>
  void each(const MetricQuery& query, Visit visit) const {
    for (const auto& [key, filed] : metrics_.rows()) {
      const MetricRow& row = filed.row;
      if (is_of(row.origin, query.subject) && is_in(row.at_ms, query.from_ms, query.to_ms) &&
          among(query.subject.services, row.origin.service) && among(query.names, row.name))
        visit(row);
    }
  }

  template <class Map>
  static std::vector<MetricPoint> first(const Map& found, std::size_t limit) {
    std::vector<MetricPoint> out;
    for (auto at = found.begin(); at != found.end() && out.size() < limit; ++at)
      out.push_back(at->second);
    return out;
  }

  const Clock& clock_;
  std::mutex mutex_;  // never held across a co_await
  Table<Key, MetricRow> metrics_;
  Table<std::pair<LogPlace, std::string>, LogRow> logs_;
  Table<Key, ConnectivityRow> connectivity_;
  Table<Key, UpdateRow> updates_;
};

}  // namespace

std::unique_ptr<TimeSeries> make_memory_time_series(const Clock& clock) {
  return std::make_unique<MemoryTimeSeries>(clock);
}

}  // namespace flock::stores

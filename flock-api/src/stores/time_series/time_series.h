// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "async/task.h"
#include "base/time.h"

namespace flock::stores {

// Where a row belongs. `service` is "" for the machine itself.
struct Origin {
  std::string org, fleet, device, service;
};

// One value of one metric (names: domain/metrics.h).
struct MetricRow {
  Origin origin;
  std::string name;
  std::int64_t at_ms = 0;
  double value = 0;
};

// A line of a log, or, with `gap` set, `count` lines from `number` on that are missing.
struct LogRow {
  Origin origin;
  std::int64_t epoch = 0, number = 0;  // of the device (docs: LogStream in device.proto)
  std::int64_t at_ms = 0;
  std::int64_t received_ms = 0;  // when it was given to the store: what arrived() goes by
  int source = 0, level = 0;     // the enums of device.proto
  std::string text;
  bool truncated = false;
  std::int64_t count = 1;
  int gap = 0;  // LogGap::Reason; 0: a line
};

struct ConnectivityRow {
  Origin origin;
  std::int64_t at_ms = 0;
  bool online = false;
  std::string reason;
};

// A step of an update on a device.
struct UpdateRow {
  Origin origin;
  std::string rollout, release;
  std::int64_t at_ms = 0;
  std::string phase, error_code, detail;
};

struct Rows {
  std::vector<MetricRow> metrics;
  std::vector<LogRow> logs;
  std::vector<ConnectivityRow> connectivity;
  std::vector<UpdateRow> updates;
  std::size_t count() const noexcept {
    return metrics.size() + logs.size() + connectivity.size() + updates.size();
  }
};

// Whose rows a question is about. `org` always; empty lists: all.
struct Subject {
  std::string org;
  std::vector<std::string> fleets, devices, services;
};

// Times in Unix ms, `from_ms` inclusive, `to_ms` exclusive.
struct MetricQuery {
  Subject subject;
  std::vector<std::string> names;
  std::int64_t from_ms = 0, to_ms = 0;
  Duration step{0};  // width of a bucket; 0: the values as they came
  std::size_t limit = 10'000;
};

// What lies in one bucket; without buckets min = max = avg.
struct MetricPoint {
  std::string device, service, name;
  std::int64_t at_ms = 0;  // where the bucket begins
  double min = 0, max = 0, avg = 0;
  std::int64_t count = 0;
};

// One metric of some devices, taken together.
struct SummaryQuery {
  std::string org;
  // By id, and from when on its values count (Unix ms).
  std::vector<std::pair<std::string, std::int64_t>> devices;
  std::string name, service;  // "" for the machine itself
  std::int64_t from_ms = 0, to_ms = 0;
};
struct Summary {
  std::int64_t devices = 0;  // that have a value; without any, the rest says nothing
  double avg = 0, max = 0, p95 = 0;
};

// A question of an operator's own, in ClickHouse's SQL (docs/rollouts.md), about rows of his
// organization within a window.
struct OperatorQuery {
  std::string org, query;
  std::int64_t from_ms = 0, to_ms = 0;
  std::vector<std::string> reached, waiting;  // devices of the rollout that it is about, by id
};
struct OperatorAnswer {
  std::optional<double> value;  // nothing: NULL, no number, or no row
  std::int64_t sample = 1;      // a second column, if there is one
};

struct LogQuery {
  Subject subject;
  std::int64_t from_ms = 0, to_ms = 0;
  int min_level = 0;     // lines of unknown level pass only 0
  std::string contains;  // text to find, exactly as it stands; "": all lines; gaps always pass
  std::size_t limit = 1000;
  bool newest_first = false;
  std::string after;  // the cursor of a row: those that follow it in the order asked for
};

struct LogPage {
  std::vector<LogRow> rows;
  std::string next;  // "" at the end
};

inline constexpr int kMaxRetentionDays = 400;

// What is kept no longer: the days (UTC) that ended before these times. 0: nothing of that kind.
struct Expiry {
  std::vector<std::string> orgs;         // empty: all
  std::int64_t telemetry_before_ms = 0;  // metrics, connectivity and updates
  std::int64_t logs_before_ms = 0;
};

// Time series of devices (docs: contracts, 8). Every question names one organization and is limited
// in rows and time. The same row twice counts once, so a batch may be repeated.
class TimeSeries {
 public:
  virtual ~TimeSeries() = default;
  // All stored when it returns, but values that are no number (NaN, infinity), which are left out.
  // kUnavailable: nothing is promised, insert again.
  virtual Task<void> insert(Rows rows) = 0;
  // The newest value of each metric of each device and service in the time asked for (`to_ms` 0: up
  // to now and beyond), by device, service and name.
  virtual Task<std::vector<MetricPoint>> latest(MetricQuery query) = 0;
  // By device, service, name and time; the first `limit` of them.
  virtual Task<std::vector<MetricPoint>> range(MetricQuery query) = 0;
  // Every value counts alike, whichever device it is of.
  virtual Task<Summary> summary(SummaryQuery query) = 0;
  // Throws kInvalidArgument for a question that is not offered, that the server does not understand
  // or whose answer is not one row of one or two numbers, kTimeout and kTooLarge as all others.
  // kUnsupported where there is no ClickHouse.
  virtual Task<OperatorAnswer> ask(OperatorQuery query) = 0;
  // By time, then device, service, epoch and number.
  virtual Task<LogPage> logs(LogQuery query) = 0;
  // What arrived from `received_ms` on, in the order of arrival, at most `query.limit`; whatever
  // the times and the cursor in `query`.
  virtual Task<std::vector<LogRow>> arrived(LogQuery query, std::int64_t received_ms) = 0;
  // In time's order; of more than `limit` the newest.
  virtual Task<std::vector<ConnectivityRow>> connectivity(Subject subject, std::int64_t from_ms,
                                                          std::int64_t to_ms,
                                                          std::size_t limit) = 0;
  // The same.
  virtual Task<std::vector<UpdateRow>> updates(Subject subject, std::int64_t from_ms,
                                               std::int64_t to_ms, std::size_t limit) = 0;
  // Asks for the removal, which may take a while; to ask again does no harm.
  virtual Task<void> expire(Expiry expiry) = 0;
  virtual Task<void> ping() = 0;
};

struct ClickHouseOptions {
  std::string url = "http://127.0.0.1:8123", database = "flock", username = "default", password;
  std::string ca_pem;  // https: trusted roots; empty: the system's
  // Who asks what operators wrote, if not `username`: one that may read the database and no more.
  std::string query_username, query_password;
  Duration query_time{10'000}, insert_time{30'000};
  std::int64_t query_rows = 500'000'000;  // read at most for one question
  const Clock* clock = &system_clock();
};

// Throws Error{kInvalidArgument} for an address or a name that cannot be.
void check(const ClickHouseOptions& options);

// For one process, whose threads may share it: the newest million rows of each kind.
std::unique_ptr<TimeSeries> make_memory_time_series(const Clock& clock = system_clock());
// Makes database and tables when they are not there. A question that takes too long or reads too
// much throws kTimeout or kTooLarge; whatever else keeps the server from answering, a refused
// password too, is kUnavailable and says why. The options are check()ed.
std::unique_ptr<TimeSeries> make_clickhouse_time_series(Executor executor,
                                                        ClickHouseOptions options);

}  // namespace flock::stores

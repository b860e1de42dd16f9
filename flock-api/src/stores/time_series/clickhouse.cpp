// SPDX-License-Identifier: Apache-2.0
// ClickHouse over HTTP, from 18.16 on (docs/time_series.md).
#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <cmath>
#include <optional>

#include "async/deadline.h"
#include "async/loop.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "net/http_client.h"
#include "stores/time_series/clickhouse_statements.h"
#include "stores/time_series/row_encoder.h"
#include "stores/time_series/rules.h"
#include "stores/time_series/sandbox.h"
#include "stores/time_series/sql.h"
#include "stores/time_series/time_series.h"

namespace flock::stores {
namespace {

using namespace clickhouse;  // NOLINT(google-build-using-namespace): the statements

constexpr std::size_t kInsertBytes = 16 << 20, kAnswerBytes = 256 << 20;
// How long a deletion waits for the one before it; after that, until somebody asks again.
constexpr Duration kDeletionPause{500};
constexpr int kDeletionRounds = 120;
constexpr Duration kGrace{2000};  // for the server to end what took too long, and to say so
constexpr std::size_t kLongestMessage = 300;
constexpr int kModern = 21;  // from this version on: LowCardinality, CODEC and TTL

// ClickHouse's own numbers (its src/Common/ErrorCodes.cpp).
enum : int {
  kUnknownTable = 60,
  kUnknownDatabase = 81,
  kTooManyRows = 158,
  kTimeoutExceeded = 159,
  kTooSlow = 160,
  kUnknownUser = 192,
  kWrongPassword = 193,
  kRequiredPassword = 194,
  kMemoryLimit = 241,
  kTooManyBytes = 307,
  kTooManyRowsOrBytes = 396,
  kAccessDenied = 497,
  kAuthenticationFailed = 516,
};

// "Code: 60, e.displayText() = ..."; 0 when it is not ClickHouse that answers.
int exception_code(const net::Response& answer) {
  constexpr std::string_view kStart = "Code: ";
  int code = 0;
  const std::size_t at = answer.body.find(kStart);
  if (at > 64) return 0;  // nowhere, or in some text
  const char* const first = answer.body.data() + at + kStart.size();
  std::from_chars(first, answer.body.data() + answer.body.size(), code);
  return code;
}

Error foreign(std::string status) {
  return Error(Code::kUnavailable, "what answers is not ClickHouse, or stands before it")
      .with("status", std::move(status))
      .hint("clickhouse.url must name ClickHouse's HTTP interface, e.g. http://host:8123");
}

Error refused(const net::Response& answer) {
  const auto error = [&](Code code, const char* message) {
    return Error(code, message).with("answer", answer.body.substr(0, 300));
  };
  switch (exception_code(answer)) {
    case kTimeoutExceeded:
    case kTooSlow:
      return error(Code::kTimeout,
                   "the question takes too long; ask for less time or less devices");
    case kTooManyRows:
    case kMemoryLimit:
    case kTooManyBytes:
    case kTooManyRowsOrBytes:
      return error(Code::kTooLarge,
                   "the question reads too much; ask for less time or fewer devices");
    case kUnknownUser:
    case kWrongPassword:
    case kRequiredPassword:
    case kAuthenticationFailed:
      return error(Code::kUnavailable, "ClickHouse refuses the username or password")
          .hint("set clickhouse.username and clickhouse.password_file");
    case kAccessDenied:
      return error(Code::kUnavailable, "ClickHouse does not let this user do that")
          .hint("grant it CREATE, SELECT, INSERT and ALTER on the database of clickhouse.database");
    case 0:
      return foreign(std::to_string(answer.status)).with("answer", answer.body.substr(0, 300));
    default:
      return error(Code::kUnavailable, "ClickHouse refused");
  }
}

// What the server says about a query that an operator wrote, without its version and its stack.
std::string server_message(const std::string& answer) {
  constexpr std::string_view kStart = "DB::Exception: ";
  const std::size_t at = answer.find(kStart);
  std::string text = at == std::string::npos ? answer : answer.substr(at + kStart.size());
  for (const char* end : {", e.what()", " (version ", "\n"})
    if (const std::size_t cut = text.find(end); cut != std::string::npos) text.resize(cut);
  if (text.size() > kLongestMessage) text.resize(kLongestMessage);
  return text;
}

// For an operator's own query whatever is not one of the known reasons is its fault.
Error misunderstood(const net::Response& answer) {
  switch (exception_code(answer)) {
    case 0:
    case kUnknownUser:
    case kWrongPassword:
    case kRequiredPassword:
    case kAccessDenied:
    case kAuthenticationFailed:
    case kUnknownTable:
    case kUnknownDatabase:
      return refused(answer);
    case kTimeoutExceeded:
    case kTooSlow:
      return Error(Code::kTimeout, "the query takes too long").hint("ask for a shorter window");
    default:
      return Error(Code::kInvalidArgument,
                   "ClickHouse cannot run the query: " + server_message(answer.body));
  }
}

std::optional<double> number_of(const boost::json::value& value) {
  if (value.is_number()) return value.to_number<double>();
  return std::nullopt;  // NULL, or what is no number in JSON: NaN and infinity
}

// {"meta": [{"name", "type"}, ...], "data": [[...], ...]}
OperatorAnswer read_answer(const std::string& body) {
  const boost::json::value answer = json::parse(body);
  const boost::json::array& columns = answer.at("meta").as_array();
  const boost::json::array& rows = answer.at("data").as_array();
  if (columns.empty() || columns.size() > 2)
    throw Error(Code::kInvalidArgument,
                "the query must give one column, or two: the value, and on how many devices");
  for (const boost::json::value& column : columns) {
    const std::string_view type = column.at("type").as_string();
    if (type.find("Int") == std::string_view::npos && type.find("Float") == std::string_view::npos)
      throw Error(Code::kInvalidArgument, "the query must give numbers, not " + std::string(type));
  }
  if (rows.size() > 1)
    throw Error(Code::kInvalidArgument, "the query must give one row, not several");
  OperatorAnswer out;
  if (rows.empty()) return out;
  const boost::json::array& row = rows.front().as_array();
  out.value = number_of(row.at(0));
  if (row.size() == 2) out.sample = static_cast<std::int64_t>(number_of(row[1]).value_or(0));
  return out;
}

bool schema_is_gone(const net::Response& answer) {
  const int code = exception_code(answer);
  return code == kUnknownTable || code == kUnknownDatabase;
}

net::ClientOptions client_options(const ClickHouseOptions& options) {
  net::ClientOptions out;
  if (!options.ca_pem.empty()) out.tls = net::make_tls_client({.ca_pem = options.ca_pem});
  out.request_time = std::max(options.insert_time, options.query_time + kGrace);
  out.body_bytes = kAnswerBytes;
  out.user_agent = "flock-api";
  out.repeatable = true;  // rows inserted twice count once
  return out;
}

std::string without_slash(std::string url) {
  while (url.ends_with('/')) url.pop_back();
  return url;
}

Statement& narrow(Statement& sql, const Subject& subject) {
  sql.add(kOfOrg).text("org", subject.org);
  if (!subject.fleets.empty()) sql.add(kInFleets).list("fleets", subject.fleets);
  if (!subject.devices.empty()) sql.add(kInDevices).list("devices", subject.devices);
  return sql;
}

Statement& within(Statement& sql, Window time) {
  const auto day = [](std::int64_t at) { return std::min(at / kDayMs, kStrayDays - 1); };
  sql.add(kInTime).number("first_day", day(time.from_ms)).number("last_day", day(time.to_ms));
  return sql.number("from", time.from_ms).number("to", time.to_ms);
}

Statement metrics(Sql start, const MetricQuery& query) {
  Statement sql(start);
  narrow(sql, query.subject);
  within(sql, bounded(query.from_ms, query.to_ms));
  if (!query.subject.services.empty())
    sql.add(kInServices).list("services", query.subject.services);
  if (!query.names.empty()) sql.add(kInNames).list("names", query.names);
  return sql;
}

Statement summary_of(const SummaryQuery& query, Window window) {
  Subject subject{query.org, {}, {}, {}};
  std::vector<std::int64_t> sinces;
  bool all_along = true;  // no device joined within the window
  for (const auto& [device, since] : query.devices) {
    subject.devices.push_back(device);
    sinces.push_back(std::max(since, window.from_ms));
    all_along = all_along && since <= window.from_ms;
  }
  Statement sql(kSummary);
  narrow(sql, subject);
  within(sql, window).add(kOfMetric).text("name", query.name).text("service", query.service);
  if (!all_along) sql.add(kSinces).numbers("sinces", sinces);
  return sql.add(kSummaryEnd);
}

Statement& filter(Statement& sql, const LogQuery& query) {
  if (!query.subject.services.empty())
    sql.add(kInServices).list("services", query.subject.services);
  if (query.min_level > 0) sql.add(kOfLevel).number("level", query.min_level);
  if (!query.contains.empty()) sql.add(kContaining).text("contains", query.contains);
  return sql;
}

Statement lines(const LogQuery& query, const std::optional<LogPlace>& after, Window window,
                std::size_t limit) {
  Statement sql(kLogs);
  narrow(sql, query.subject);
  within(sql, window).add(kInHours).number("first_hour", window.from_ms / kHourMs);
  sql.number("last_hour", window.to_ms / kHourMs);
  filter(sql, query);
  if (after) {
    sql.add(query.newest_first ? kBefore : kAfter).number("at", after->at_ms);
    sql.text("device", after->device).text("service", after->service).number("epoch", after->epoch);
    sql.number("number", after->number).number("gap", after->gap);
  }
  sql.add(query.newest_first ? kNewestFirst : kOldestFirst);
  sql.number("limit", static_cast<std::int64_t>(limit));
  return sql;
}

// What both kinds of points begin with.
MetricPoint read_place(RowReader& in) {
  MetricPoint out;
  out.device = in.text();
  out.service = in.text();
  out.name = in.text();
  out.at_ms = in.number<std::int64_t>();
  return out;
}

MetricPoint read_latest(RowReader& in) {
  MetricPoint out = read_place(in);
  out.min = out.max = out.avg = in.number<double>();
  out.count = 1;
  return out;
}

MetricPoint read_bucket(RowReader& in) {
  MetricPoint out = read_place(in);
  out.min = in.number<double>();
  out.max = in.number<double>();
  out.avg = in.number<double>();
  out.count = in.number<std::int64_t>();
  return out;
}

LogRow read_line(RowReader& in) {
  LogRow out;
  out.origin.fleet = in.text();
  out.origin.device = in.text();
  out.origin.service = in.text();
  out.epoch = in.number<std::int64_t>();
  out.number = in.number<std::int64_t>();
  out.at_ms = in.number<std::int64_t>();
  out.received_ms = in.number<std::int64_t>();
  out.source = in.number<std::uint8_t>();
  out.level = in.number<std::uint8_t>();
  out.gap = in.number<std::uint8_t>();
  out.truncated = in.number<std::uint8_t>() != 0;
  out.count = in.number<std::int64_t>();
  out.text = in.text();
  return out;
}

ConnectivityRow read_connectivity(RowReader& in) {
  ConnectivityRow out;
  out.origin.fleet = in.text();
  out.origin.device = in.text();
  out.at_ms = in.number<std::int64_t>();
  out.online = in.number<std::uint8_t>() != 0;
  out.reason = in.text();
  return out;
}

UpdateRow read_update(RowReader& in) {
  UpdateRow out;
  out.origin.fleet = in.text();
  out.origin.device = in.text();
  out.rollout = in.text();
  out.release = in.text();
  out.at_ms = in.number<std::int64_t>();
  out.phase = in.text();
  out.error_code = in.text();
  out.detail = in.text();
  return out;
}

template <class Row>
std::vector<Row> read_all(const std::string& answer, Row (*read)(RowReader&)) {
  std::vector<Row> out;
  for (RowReader in(answer); !in.done();) out.push_back(read(in));
  return out;
}

template <class Row>
std::vector<Row> of_org(std::vector<Row> rows, const std::string& org) {
  for (Row& row : rows) row.origin.org = org;
  return rows;
}

class ClickHouseTimeSeries final : public TimeSeries {
 public:
  ClickHouseTimeSeries(Executor executor, ClickHouseOptions options)
      : options_(std::move(options)),
        url_(without_slash(options_.url)),
        http_(executor, client_options(options_)) {
    check(options_);
  }

  Task<void> insert(Rows rows) override {
    std::erase_if(rows.metrics, [](const MetricRow& row) { return !std::isfinite(row.value); });
    try {
      co_await put_all(kInsertMetrics, rows.metrics);
      co_await put_all(kInsertLogs, rows.logs);
      co_await put_all(kInsertConnectivity, rows.connectivity);
      co_await put_all(kInsertUpdates, rows.updates);
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled || error.code() == Code::kUnavailable) throw;
      // Rows are always well-formed: whatever it was may be over when they come again.
      throw Error(Code::kUnavailable, "ClickHouse did not take the rows")
          .with("reason", error.describe());
    }
  }

  Task<std::vector<MetricPoint>> latest(MetricQuery query) override {
    check(query);
    if (query.to_ms == 0) query.to_ms = INT64_MAX;
    Statement sql = metrics(kLatest, query);
    sql.add(kLatestEnd).number("limit", static_cast<std::int64_t>(query.limit));
    co_return read_all(co_await ask(std::move(sql)), read_latest);
  }

  Task<std::vector<MetricPoint>> range(MetricQuery query) override {
    check(query);
    Statement sql = metrics(kRange, query);
    sql.add(kRangeEnd).number("step", std::max<std::int64_t>(query.step.count(), 1));
    sql.number("limit", static_cast<std::int64_t>(query.limit));
    co_return read_all(co_await ask(std::move(sql)), read_bucket);
  }

  Task<Summary> summary(SummaryQuery query) override {
    check(query);
    Summary out;
    if (query.devices.empty()) co_return out;
    const std::string answer = co_await ask(summary_of(query, bounded(query.from_ms, query.to_ms)));
    RowReader in(answer);
    out.devices = in.number<std::int64_t>();
    const double avg = in.number<double>(), max = in.number<double>(), p95 = in.number<double>();
    if (out.devices > 0) out = {out.devices, avg, max, p95};
    co_return out;
  }

  Task<OperatorAnswer> ask(OperatorQuery query) override {
    check(query);
    co_await make_schema();
    const std::string text = sandboxed(query, options_.database);
    net::Headers who = options_.query_username.empty()
                           ? headers()
                           : headers(options_.query_username, options_.query_password);
    Task<net::Response> sending =
        http_.send("POST", url_ + "/?" + in_database() + sandbox_settings(), std::move(who), text);
    const net::Response answer =
        co_await with_deadline(std::move(sending), options_.query_time, "a query of an operator");
    if (answer.status == 200) co_return read_answer(answer.body);
    throw misunderstood(answer);
  }

  // From the end where it begins, in ever wider windows: a page of new lines must not read a month.
  Task<LogPage> logs(LogQuery query) override {
    check(query);
    std::optional<LogPlace> after;
    if (!query.after.empty()) after = parse_cursor(query.after);
    Window left = bounded(query.from_ms, query.to_ms);
    if (after && query.newest_first && after->at_ms < left.to_ms) left.to_ms = after->at_ms + 1;
    if (after && !query.newest_first) left.from_ms = std::max(left.from_ms, after->at_ms);
    LogPage page;
    for (std::int64_t width = kHourMs; left.from_ms < left.to_ms; width *= 4) {
      Window window = left;
      if (left.to_ms - left.from_ms > width) {
        if (query.newest_first)
          left.to_ms = window.from_ms = left.to_ms - width;
        else
          left.from_ms = window.to_ms = left.from_ms + width;
      } else {
        left.from_ms = left.to_ms;
      }
      const std::size_t wanted = query.limit + 1 - page.rows.size();  // one more: is there a next?
      const std::string answer = co_await ask(lines(query, after, window, wanted));
      for (LogRow& row : of_org(read_all(answer, read_line), query.subject.org))
        page.rows.push_back(std::move(row));
      if (page.rows.size() <= query.limit) continue;
      page.rows.pop_back();
      page.next = cursor_of(page.rows.back());
      break;
    }
    co_return page;
  }

  Task<std::vector<LogRow>> arrived(LogQuery query, std::int64_t received_ms) override {
    check(query);
    Statement sql(kLogs);
    narrow(sql, query.subject).add(kReceived).number("received", received_ms);
    filter(sql, query).add(kByArrival).number("limit", static_cast<std::int64_t>(query.limit));
    co_return of_org(read_all(co_await ask(std::move(sql)), read_line), query.subject.org);
  }

  Task<std::vector<ConnectivityRow>> connectivity(Subject subject, std::int64_t from_ms,
                                                  std::int64_t to_ms, std::size_t limit) override {
    check(subject, limit);
    Statement sql(kConnectivity);
    narrow(sql, subject);
    within(sql, bounded(from_ms, to_ms)).add(kConnectivityEnd);
    sql.number("limit", static_cast<std::int64_t>(limit));
    auto rows = of_org(read_all(co_await ask(std::move(sql)), read_connectivity), subject.org);
    std::ranges::reverse(rows);
    co_return rows;
  }

  Task<std::vector<UpdateRow>> updates(Subject subject, std::int64_t from_ms, std::int64_t to_ms,
                                       std::size_t limit) override {
    check(subject, limit);
    Statement sql(kUpdates);
    narrow(sql, subject);
    within(sql, bounded(from_ms, to_ms)).add(kUpdatesEnd);
    sql.number("limit", static_cast<std::int64_t>(limit));
    auto rows = of_org(read_all(co_await ask(std::move(sql)), read_update), subject.org);
    std::ranges::reverse(rows);
    co_return rows;
  }

  Task<void> expire(Expiry expiry) override {
    co_await expire_table("logs", expiry.orgs, expiry.logs_before_ms);
    for (const char* table : {"metrics", "connectivity", "updates"})
      co_await expire_table(table, expiry.orgs, expiry.telemetry_before_ms);
  }

  Task<void> ping() override { co_await ask(Statement(kVersion)); }

 private:
  enum class Kind { kRead, kWrite };

  net::Headers headers() const { return headers(options_.username, options_.password); }
  static net::Headers headers(const std::string& username, const std::string& password) {
    net::Headers out;
    out.add("X-ClickHouse-User", username);
    if (!password.empty()) out.add("X-ClickHouse-Key", password);
    return out;
  }

  // Reading questions can change nothing, whatever they say, and are held to limits.
  std::string settings_for(Kind kind) const {
    if (kind == Kind::kWrite) return "";
    const auto seconds = std::max<std::int64_t>((options_.query_time.count() + 999) / 1000, 1);
    return "&readonly=2&wait_end_of_query=1&max_query_size=16777216&max_ast_elements=1000000"
           "&max_expanded_ast_elements=1000000&result_overflow_mode=throw&max_result_bytes=" +
           std::to_string(kAnswerBytes / 2) +
           "&max_memory_usage=2000000000&max_execution_time=" + std::to_string(seconds) +
           "&max_rows_to_read=" + std::to_string(options_.query_rows);
  }

  Task<net::Response> send(const std::string& parameters, std::string body) {
    co_return co_await http_.send("POST", url_ + "/?" + parameters, headers(), std::move(body));
  }

  std::string in_database() const { return "database=" + options_.database; }

  // The schema is made when it is first needed, and again when somebody took it away. `body` lives
  // in the caller: rows are not copied for an attempt that may never come.
  Task<std::string> run(std::string parameters, const std::string& body) {
    for (int attempt = 0;; ++attempt) {
      co_await make_schema();
      net::Response answer = co_await send(in_database() + parameters, body);
      if (answer.status == 200) co_return std::move(answer.body);
      if (!schema_is_gone(answer) || attempt > 0) throw refused(answer);
      has_schema_ = false;
    }
  }

  Task<std::string> ask(Statement sql) {
    const std::string text = sql.str();
    Task<std::string> running = run(settings_for(Kind::kRead), text);
    co_return co_await with_deadline(std::move(running), options_.query_time + kGrace,
                                     "a question to ClickHouse");
  }
  Task<void> order(Statement sql) {
    const std::string text = sql.str();
    co_await run(settings_for(Kind::kWrite), text);
  }

  template <class Row>
  Task<void> put_all(Sql statement, const std::vector<Row>& rows) {
    const std::string parameters = "&query=" + url_encode(statement.text());
    const std::int64_t now = to_unix_ms(options_.clock->now());
    for (std::size_t i = 0; i < rows.size();) {
      RowWriter body;
      while (i < rows.size() && body.size() < kInsertBytes) put(body, rows[i++], now);
      co_await run(parameters, body.take());
    }
  }

  Task<void> make_schema() {
    if (has_schema_) co_return;
    Statement database(kCreateDatabase);
    database.name("database", options_.database);
    co_await make("", std::move(database));
    const bool modern = co_await version() >= kModern;
    for (const Sql table : {kCreateMetrics, kCreateLogs, kCreateConnectivity, kCreateUpdates}) {
      Statement sql(table);
      sql.part("low", modern ? Sql("LowCardinality(String)") : Sql("String"));
      sql.part("time", modern ? Sql("CODEC(DoubleDelta, LZ4)") : Sql(""));
      sql.part("value", modern ? Sql("CODEC(Gorilla, LZ4)") : Sql(""));
      sql.part("lines", modern ? Sql("CODEC(ZSTD(1))") : Sql(""));
      sql.part("keep", modern ? kModernKeep : Sql(""));
      co_await make(in_database(), std::move(sql));
    }
    has_schema_ = true;
  }

  Task<std::string> make(std::string parameters, Statement sql) {
    net::Response answer = co_await send(parameters, sql.str());
    if (answer.status != 200) throw refused(answer);
    co_return std::move(answer.body);
  }

  Task<int> version() {
    const std::string answer = co_await make("", Statement(kVersion));
    // A server of another kind may well answer 200 to everything, rows included.
    const std::string text = answer.empty() ? "" : answer.substr(1);  // its length comes first
    int major = 0;
    std::from_chars(text.data(), text.data() + text.size(), major);
    if (major == 0) throw foreign("200");
    log::info("ClickHouse answers", {{"version", text}});
    co_return major;
  }

  Task<void> expire_table(std::string table, std::vector<std::string> orgs,
                          std::int64_t before_ms) {
    if (before_ms <= 0) co_return;
    const std::int64_t before = before_ms / kDayMs;
    if (orgs.empty()) {
      co_await drop_partitions(table, before);
      co_return;
    }
    Statement any(kAnyOld), deleting(kDeleting), erase(kDelete);
    any.name("name", table).number("before", before).list("orgs", orgs);
    deleting.text("database", options_.database).text("table", table);
    erase.name("name", table).number("before", before).list("orgs", orgs);
    for (int round = 0; round < kDeletionRounds; ++round) {
      if ((co_await ask(any)).empty()) co_return;
      if ((co_await ask(deleting)).empty()) {
        co_await order(std::move(erase));
        co_return;
      }
      co_await sleep_for(kDeletionPause);
    }
  }

  Task<void> drop_partitions(std::string table, std::int64_t before) {
    Statement old(kOldPartitions);
    old.text("database", options_.database).text("table", table).number("before", before);
    const std::string answer = co_await ask(std::move(old));
    for (RowReader in(answer); !in.done();) {
      Statement drop(kDropPartition);
      drop.name("name", table).text("partition", in.text());
      co_await order(std::move(drop));
    }
  }

  const ClickHouseOptions options_;
  const std::string url_;
  net::HttpClient http_;
  bool has_schema_ = false;
};

}  // namespace

void check(const ClickHouseOptions& options) {
  const net::Url url = net::parse_url(options.url);
  if (url.scheme != "http" && url.scheme != "https")
    throw Error(Code::kInvalidArgument, "ClickHouse is reached over http or https")
        .with("url", options.url);
  if (url.path.find_first_of("?#") != std::string::npos)
    throw Error(Code::kInvalidArgument, "the URL of ClickHouse must not hold a query")
        .with("url", options.url);
  if (!is_identifier(options.database))
    throw Error(Code::kInvalidArgument,
                "the name of a database has letters, digits and _, a letter first")
        .with("database", options.database);
}

std::unique_ptr<TimeSeries> make_clickhouse_time_series(Executor executor,
                                                        ClickHouseOptions options) {
  return std::make_unique<ClickHouseTimeSeries>(executor, std::move(options));
}

}  // namespace flock::stores

// SPDX-License-Identifier: Apache-2.0
// What services write: read, searched and followed.
#include <algorithm>

#include "async/loop.h"
#include "base/bytes.h"
#include "crypto/keys.h"
#include "net/sse.h"
#include "targets/api/devices.h"
#include "targets/api/log_follow.h"
#include "targets/api/queries.h"
#include "targets/api/streams.h"

namespace flock::targets::api {
namespace {

constexpr Duration kSpan{3'600'000}, kMostSpan = std::chrono::days(400);
constexpr Duration kPoll{250}, kOverlap{10'000}, kLateEvery{2000}, kTooSlow{30'000}, kAgain{1000};
constexpr Duration kDoubt{300'000}, kLateInDoubt{5000};
constexpr Duration kSlowWrite{1000}, kTailSpan = std::chrono::days(7);
constexpr std::size_t kPage = 1000, kMostPage = 64'000, kLongestText = 1000;
constexpr int kPrimePages = 20;

constexpr const char* kLevels[] = {"UNKNOWN", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"};
constexpr const char* kSources[] = {"UNKNOWN", "STDOUT", "STDERR", "JOURNAL", "KERNEL"};
constexpr const char* kGaps[] = {"UNKNOWN", "RATE_LIMITED", "SPOOL_FULL", "UNREADABLE"};

template <std::size_t N>
const char* name_of(const char* const (&names)[N], int value) {
  return names[value >= 0 && value < static_cast<int>(N) ? value : 0];
}

using Names = std::unordered_map<std::string, std::string>;

bj::object row_json(const stores::LogRow& row, const Names& names) {
  const auto name = names.find(row.origin.device);
  bj::object out{
      {"kind", row.gap == 0 ? "line" : "gap"},
      {"at", to_rfc3339(device_time(row.at_ms))},
      {"device", {{"id", row.origin.device}, {"name", name == names.end() ? "" : name->second}}},
      {"service", row.origin.service},
      {"epoch", row.epoch},
      {"number", row.number},
      {"received_at", to_rfc3339(device_time(row.received_ms))}};
  if (row.gap != 0) {
    out["count"] = row.count;
    out["reason"] = name_of(kGaps, row.gap);
    return out;
  }
  out["level"] = name_of(kLevels, row.level);
  out["source"] = name_of(kSources, row.source);
  out["text"] = row.text;
  if (row.truncated) out["truncated"] = true;
  return out;
}

int read_level(const net::Request& request) {
  std::string text = request.query("level").value_or("");
  std::transform(text.begin(), text.end(), text.begin(), ::toupper);
  if (text.empty()) return 0;
  for (int level = 1; level < static_cast<int>(std::size(kLevels)); ++level) {
    if (text == kLevels[level]) return level;
  }
  throw parameter_fault("level", "debug, info, warn, error or fatal: that and above");
}

// What both reading and following ask for.
Task<stores::LogQuery> read_query(Call& call) {
  stores::LogQuery query;
  query.subject = co_await read_subject(call);
  query.min_level = read_level(call.request);
  query.contains = call.request.query("contains").value_or("");
  if (query.contains.size() > kLongestText) throw parameter_fault("contains", "at most 1000 bytes");
  co_return query;
}

Task<void> add_names(Call& call, const std::vector<stores::LogRow>& rows, Names& names) {
  std::vector<std::string> ids;
  for (const auto& row : rows) {
    if (!names.contains(row.origin.device)) ids.push_back(row.origin.device);
  }
  names.merge(co_await device_names(call, std::move(ids)));
}

// --- Pages
// ----------------------------------------------------------------------------------------

// A relative time moves between two pages, so the token holds the times, and the question it
// belongs to.
struct LogToken {
  std::int64_t from_ms = 0, to_ms = 0;
  std::string after;
};

std::string question_of(const stores::LogQuery& query) {
  bj::array lists{bj::value_from(query.subject.fleets),
                  bj::value_from(query.subject.devices),
                  bj::value_from(query.subject.services),
                  query.min_level,
                  query.contains,
                  query.newest_first};
  return to_hex(crypto::sha256(bj::serialize(lists))).substr(0, 16);
}

std::string write_token(const LogToken& token, const stores::LogQuery& query) {
  if (token.after.empty()) return "";
  return to_base64url(bj::serialize(bj::object{{"f", token.from_ms},
                                               {"t", token.to_ms},
                                               {"a", to_base64url(token.after)},
                                               {"q", question_of(query)}}));
}

LogToken read_token(const std::string& text, const stores::LogQuery& query) {
  LogToken token;
  try {
    const bj::value value = json::parse(from_base64url(text).value_or(""), {.bytes = 4096});
    json::Reader in(value);
    token.from_ms = in.integer("f", {});
    token.to_ms = in.integer("t", {});
    token.after = from_base64url(in.string("a", {.max = 4000})).value_or("");
    const std::string question = in.string("q");
    in.finish();
    if (question == question_of(query) && !token.after.empty()) return token;
  } catch (const Error&) {
  }
  throw bad_parameter("page_token", "it is not one of ours, or of another question");
}

Task<net::Reply> answer_logs(Call& call, stores::LogQuery query) {
  const std::string order = call.request.query("order").value_or("desc");
  if (order != "asc" && order != "desc") throw parameter_fault("order", "asc or desc");
  query.newest_first = order == "desc";
  query.limit = static_cast<std::size_t>(read_page_size(call.request));
  LogToken token;
  if (const auto given = call.request.query("page_token"); given && !given->empty()) {
    token = read_token(*given, query);
  } else {
    const TimeRange range = read_range(call.request, kSpan, kMostSpan);
    token.from_ms = to_unix_ms(range.from);
    token.to_ms = to_unix_ms(range.to);
  }
  query.from_ms = token.from_ms;
  query.to_ms = token.to_ms;
  query.after = token.after;
  stores::LogPage page = co_await call.context.parts.time_series.logs(query);
  Names names;
  co_await add_names(call, page.rows, names);
  bj::array items;
  for (const auto& row : page.rows) items.push_back(row_json(row, names));
  token.after = page.next;
  co_return json_reply(
      200, bj::object{{"items", std::move(items)}, {"next_page_token", write_token(token, query)}});
}

constexpr std::initializer_list<std::string_view> kPageParameters = {
    "fleet", "device", "service", "level",     "contains",
    "from",  "to",     "order",   "page_size", "page_token"};

Task<net::Reply> list_logs(Call& call) {
  allow_query(call.request, kPageParameters);
  co_return co_await answer_logs(call, co_await read_query(call));
}

Task<net::Reply> device_logs(Call& call) {
  allow_query(call.request, kPageParameters);
  stores::LogQuery query = co_await read_query(call);
  query.subject.devices = {text_of(co_await find_device(call, call.parameter("id")), "id")};
  co_return co_await answer_logs(call, std::move(query));
}

// --- Following
// ------------------------------------------------------------------------------------

class LogStream final : public EventSource {
 public:
  struct Start {
    stores::LogQuery query;
    std::optional<std::int64_t> from_ms;  // by arrival; nothing: from now on
    std::size_t tail = 0;                 // lines of before to begin with
  };
  LogStream(Call& call, Follows& follows, Start start, const std::optional<std::string>& after)
      : call_(call.context, call.operation, call.request, call.parameters),
        follows_(follows),
        start_(std::move(start)),
        name_(new_uuid()) {
    call_.who = call.who;
    const std::int64_t now = to_unix_ms(system_clock().now());
    if (after) {
      const Follows::Place place = Follows::parse(*after);
      follow_ = follows_.resume(place, name_, now);
      position_ = place.received_ms;
      floor_ = position_ - kOverlap.count();
      begun_ = true;
    } else {
      position_ = start_.from_ms.value_or(now);
      floor_ = start_.from_ms ? position_ : position_ - kOverlap.count();
    }
    if (!follow_) follow_ = follows_.make(name_, now);
    scan_ = floor_;
  }

  Task<std::string> next(Duration limit, bool&) override {
    // Between two calls the reader takes what he was given.
    const bool waited = told_at_ != SteadyPoint() && steady_now() - told_at_ > kSlowWrite;
    slow_ = slow_ || waited;
    std::string text = co_await more(limit);
    told_at_ = steady_now();
    co_return text;
  }

 private:
  static SteadyPoint steady_now() { return std::chrono::steady_clock::now(); }

  Task<std::string> more(Duration limit) {
    follow_->used_ms = to_unix_ms(system_clock().now());
    try {
      if (!begun_) co_return co_await begin();
      if (!more_) co_await sleep_for(std::min(kPoll, limit));
      co_return co_await look();
    } catch (const Error& error) {
      if (error.code() != Code::kUnavailable && error.code() != Code::kTimeout) throw;
      // The store is away for a moment: the reader keeps its place. What it was given before may
      // show only now, under the time at which it was given.
      doubt_ = std::min(doubt_, position_ - kOverlap.count());
      doubt_until_ = steady_now() + kDoubt;
    }
    co_await sleep_for(std::min(kAgain, limit));
    co_return "";
  }

  // What was there before is not news; the tail is told all the same.
  Task<std::string> begin() {
    if (!start_.from_ms) {
      for (int page = 0; page < kPrimePages; ++page) {
        const auto rows = co_await arrived(scan_);
        for (const auto& row : rows) follow_->delivered.add(row, 0);
        if (rows.size() < limit_) break;
        scan_ = rows.back().received_ms;
      }
    }
    std::string text = ": connected\n\n";
    if (start_.tail > 0) {
      stores::LogQuery query = start_.query;
      query.to_ms = to_unix_ms(system_clock().now() + kTailSpan);
      query.from_ms = to_unix_ms(system_clock().now() - kTailSpan);
      query.newest_first = true;
      query.limit = start_.tail;
      auto rows = (co_await call_.context.parts.time_series.logs(std::move(query))).rows;
      std::reverse(rows.begin(), rows.end());
      co_await add_names(call_, rows, names_);
      for (const auto& row : rows) {
        follow_->delivered.add(row, ++number_);
        text += event_of(row);
      }
    }
    begun_ = true;
    scan_ = floor_;
    late_at_ = steady_now() + kLateEvery;
    co_return text;
  }

  Task<std::string> look() {
    const SteadyPoint now = steady_now();
    if (now > doubt_until_) doubt_ = INT64_MAX;
    const bool doubts = doubt_ != INT64_MAX;
    if (!more_ && now >= late_at_) {
      scan_ = std::max(floor_, std::min(doubt_, position_ - kOverlap.count()));
      late_at_ = now + (doubts ? kLateInDoubt : kLateEvery);
    }
    std::string text = skip_when_too_slow();
    const auto rows = co_await arrived(scan_);
    more_ = rows.size() >= limit_;
    if (!more_) slow_ = false;
    std::vector<stores::LogRow> fresh;
    for (const auto& row : rows) {
      if (!follow_->delivered.add(row, number_ + 1)) continue;
      ++number_;
      fresh.push_back(row);
    }
    // More rows of one millisecond than fit a page would hold the scan where it is.
    const bool stuck = more_ && rows.back().received_ms == scan_;
    limit_ = stuck ? std::min(limit_ * 2, kMostPage) : kPage;
    if (more_ && !stuck) scan_ = rows.back().received_ms;
    co_await add_names(call_, fresh, names_);
    std::uint64_t number = number_ - fresh.size();
    for (const auto& row : fresh) {
      position_ = std::max(position_, row.received_ms);
      text += event_of(row, ++number);
    }
    if (!more_) {
      scan_ = position_;
      follow_->delivered.trim(std::min(doubt_, position_ - 2 * kOverlap.count()));
    }
    co_return text;
  }

  // Who reads slower than his devices write goes on with what is new, and is told so.
  std::string skip_when_too_slow() {
    const std::int64_t now = to_unix_ms(system_clock().now());
    if (!slow_ || !more_ || now - scan_ < kTooSlow.count()) return "";
    const bj::object gap{{"kind", "gap"},
                         {"reason", "SLOW_READER"},
                         {"from", to_rfc3339(from_unix_ms(scan_))},
                         {"to", to_rfc3339(from_unix_ms(now))}};
    position_ = scan_ = floor_ = now;
    slow_ = more_ = false;
    return net::format_sse({Follows::id_of({name_, number_, now}), "gap", bj::serialize(gap)});
  }

  Task<std::vector<stores::LogRow>> arrived(std::int64_t from_ms) {
    stores::LogQuery query = start_.query;
    query.limit = limit_;
    query.from_ms = 0;
    query.to_ms = INT64_MAX;
    co_return co_await call_.context.parts.time_series.arrived(std::move(query), from_ms);
  }

  std::string event_of(const stores::LogRow& row) { return event_of(row, number_); }
  std::string event_of(const stores::LogRow& row, std::uint64_t number) {
    return net::format_sse({Follows::id_of({name_, number, std::max(position_, row.received_ms)}),
                            row.gap == 0 ? "log" : "gap", bj::serialize(row_json(row, names_))});
  }

  Call call_;
  Follows& follows_;
  Start start_;
  const std::string name_;
  std::shared_ptr<Follows::Follow> follow_;
  Names names_;
  std::uint64_t number_ = 0;
  std::int64_t position_ = 0;       // what arrived last, of what was told
  std::int64_t floor_ = 0;          // nothing of before this is told
  std::int64_t scan_ = 0;           // where the next look begins
  std::int64_t doubt_ = INT64_MAX;  // since when the store was away, and rows may come late
  SteadyPoint doubt_until_;
  std::size_t limit_ = kPage;
  bool begun_ = false, more_ = false, slow_ = false;
  SteadyPoint late_at_, told_at_;
};

Task<net::Reply> follow_logs(Call& call, std::shared_ptr<Follows> follows) {
  allow_query(call.request, {"fleet", "device", "service", "level", "contains", "from", "tail"});
  LogStream::Start start;
  start.query = co_await read_query(call);
  const TimePoint now = system_clock().now();
  if (const auto from = call.request.query("from"); from && !from->empty())
    start.from_ms = to_unix_ms(read_instant(call.request, "from", now, now));
  if (const auto tail = call.request.query("tail")) {
    if (tail->empty() || tail->size() > 4 ||
        tail->find_first_not_of("0123456789") != std::string::npos || std::stoul(*tail) > 1000)
      throw parameter_fault("tail", "0 to 1000 lines");
    start.tail = std::stoul(*tail);
  }
  co_return stream_reply(call, std::make_shared<LogStream>(call, *follows, std::move(start),
                                                           last_event_id(call.request)));
}

}  // namespace

void add_log_routes(Context& c) {
  constexpr auto kReads = Permission::kLogsRead;
  const auto follows = std::make_shared<Follows>();
  c.add(allowed("listLogs", "GET", "/v1/logs", kReads), list_logs);
  c.add(allowed("listDeviceLogs", "GET", "/v1/devices/{id}/logs", kReads), device_logs);
  c.add(allowed("followLogs", "GET", "/v1/logs:follow", kReads),
        [follows](Call& call) { return follow_logs(call, follows); });
}

}  // namespace flock::targets::api

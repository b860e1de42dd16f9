// SPDX-License-Identifier: Apache-2.0
// Loki 3 over HTTP: /loki/api/v1/push, query_range, label values. Its limits by default: samples
// older than a week and, in a stream, older than an hour before the newest one are refused; a query
// spans at most 30 days and 5,000 lines (grafana/loki docs/sources/shared/configuration.md).
#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <charconv>
#include <set>

#include "async/backoff.h"
#include "async/blocking.h"
#include "async/event.h"
#include "async/loop.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "net/http_client.h"
#include "stores/audit/audit_store.h"
#include "stores/audit/spool.h"

namespace flock::stores {
namespace {

namespace bj = boost::json;

constexpr std::int64_t kHour = 3'600'000'000'000, kDay = 24 * kHour;
constexpr std::int64_t kOldest = 6 * kDay;     // older ones get the present as their timestamp
constexpr std::int64_t kWindow = 29 * kDay;    // of one query
constexpr std::int64_t kHorizon = 400 * kDay;  // how far back is looked
constexpr std::size_t kQueryLines = 1000, kScanLimit = 100'000;

struct Sample {
  std::int64_t ns;
  std::string line;
};

std::string quoted(std::string_view text) {
  std::string out;
  json::append_quoted(out, text);
  return out;
}

std::string selector(const OrgId& org, const AuditFilter& filter = {}) {
  std::string out = "{app=\"flock-audit\",org=" + quoted(org.text());
  if (!filter.action.empty()) out += ",action=" + quoted(filter.action);
  if (!filter.resource_type.empty()) out += ",resource_type=" + quoted(filter.resource_type);
  return out + "}";
}

std::optional<std::int64_t> number(std::string_view text) {
  std::int64_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size()) return std::nullopt;
  return value;
}

// One stream for each set of labels; the other facts are structured metadata, so that there are few
// streams. `shift`: the timestamps begin at the present.
std::string push_body(const std::vector<Spooled>& batch, std::int64_t now, bool shift,
                      std::int64_t& ns) {
  std::map<std::array<std::string, 3>, bj::array> streams;
  for (const Spooled& record : batch) {
    const auto line = audit::read_line(record.line);
    if (!line) continue;  // checked by the spool
    const audit::Event& event = line->event;
    const bool late = shift || record.ns < now - kOldest;
    ns = std::max(ns + 1, late ? now : record.ns);
    bj::object facts{{"actor", event.actor_id},
                     {"actor_kind", event.actor_kind},
                     {"resource", event.resource_id},
                     {"request_id", event.request_id},
                     {"ip", event.ip},
                     {"outcome", audit::to_string(event.outcome)},
                     {"seq", std::to_string(line->seq)}};
    streams[{event.org, event.action, event.resource_type}].push_back(
        bj::array{std::to_string(ns), record.line, std::move(facts)});
  }
  bj::array out;
  for (auto& [labels, values] : streams)
    out.push_back(bj::object{{"stream",
                              {{"app", "flock-audit"},
                               {"org", labels[0]},
                               {"action", labels[1]},
                               {"resource_type", labels[2]}}},
                             {"values", std::move(values)}});
  return bj::serialize(bj::object{{"streams", std::move(out)}});
}

net::ClientOptions client_options(const LokiOptions& options) {
  net::ClientOptions out;
  out.unix_path = options.unix_path;
  out.body_bytes = 256 << 20;
  out.user_agent = "flock-api";
  return out;
}

class LokiAuditStore final : public AuditStore {
 public:
  LokiAuditStore(Executor executor, LokiOptions options)
      : options_(std::move(options)),
        http_(executor, client_options(options_)),
        spool_(options_.spool_directory, options_.spool_bytes, options_.segment_bytes),
        arrival_(executor) {}

  Task<void> open() override {
    co_await blocking([this] { spool_.open(); });
    if (spool_.is_new()) {
      // Once, so that a chain goes on when the spool's disk was lost.
      std::map<std::string, audit::Head> heads;
      for (const std::string& org : co_await organizations())
        heads[org] = co_await head(OrgId::trusted(org));
      co_await blocking([&] { spool_.learn(std::move(heads)); });
    }
    arrival_.set();
  }

  Task<void> append(std::vector<audit::Event> events) override {
    co_await blocking([&] { spool_.append(events); });
    arrival_.set();
  }

  Task<audit::Head> head(OrgId org) override {
    audit::Head found;
    const auto take = [&](const Sample&, const audit::Line& line) {
      found = {line.seq, line.hash};
      return false;
    };
    co_await scan_back(selector(org), INT64_MAX, 1, take);
    co_return found;
  }

  Task<AuditPage> page(OrgId org, AuditFilter filter, std::string before,
                       std::size_t limit) override {
    // The token: "<ns>.<seq>" of the last line that was looked at.
    std::int64_t ns = INT64_MAX, seq = INT64_MAX;
    if (!before.empty()) {
      const std::size_t dot = std::min(before.find('.'), before.size() - 1);
      const auto left = number(std::string_view(before).substr(0, dot)),
                 right = number(std::string_view(before).substr(dot + 1));
      if (!left || !right) throw Error(Code::kInvalidArgument, "page_token is not one of ours");
      ns = *left;
      seq = *right;
    }
    AuditPage page;
    std::size_t scanned = 0;
    const auto take = [&](const Sample& sample, const audit::Line& line) {
      if (line.seq >= seq) return true;  // pushed twice
      if (page.lines.size() == limit || ++scanned > kScanLimit) {
        page.next = std::to_string(ns) + "." + std::to_string(seq);
        return false;
      }
      ns = sample.ns;
      seq = line.seq;
      if (matches(filter, line.event)) page.lines.push_back(sample.line);
      return true;
    };
    co_await scan_back(selector(org, filter), ns, kQueryLines, take);
    co_return page;
  }

  Task<void> walk(OrgId org, std::int64_t from_seq, Visit visit) override {
    const std::int64_t end = now_ns() + kHour;
    std::int64_t start = end - kHorizon, last = 0;
    while (start < end) {
      const std::int64_t stop = std::min(end, start + kWindow);
      const auto batch = co_await query(selector(org), start, stop, kQueryLines, "forward");
      for (const Sample& sample : batch) {
        const auto line = audit::glance(sample.line);
        if (line && (line->seq < from_seq || line->seq <= last)) continue;  // or pushed twice
        if (line) last = line->seq;
        if (!co_await visit(sample.line)) co_return;
      }
      start = batch.size() < kQueryLines ? stop : batch.back().ns + 1;
    }
  }

  Task<void> run() override {
    Backoff backoff(options_.backoff_first, options_.backoff_max);
    bool shift = false;
    for (;;) {
      arrival_.reset();
      std::vector<Spooled> batch;
      co_await blocking([&] { batch = spool_.next(options_.push_bytes); });
      if (batch.empty()) {
        co_await arrival_.wait();
        continue;
      }
      try {
        shift = !co_await push(batch, shift);
        if (!shift) {
          backoff.reset();
          away_ = false;
          continue;
        }
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        complain(error, batch.front().ns);
      }
      co_await sleep_for(backoff.next());
    }
  }

 private:
  std::int64_t now_ns() const { return to_unix_ms(options_.clock->now()) * 1'000'000; }

  static Task<void> blocking(std::function<void()> job) {
    co_await BlockingPool::shared().run_void(std::move(job));
  }

  net::Headers headers() const {
    net::Headers out;
    if (!options_.tenant.empty()) out.add("X-Scope-OrgID", options_.tenant);
    if (!options_.token_file.empty())
      out.add("Authorization", "Bearer " + read_secret_file(options_.token_file));
    return out;
  }

  // False when Loki refused the timestamps: what was taken of the batch is sent again, and found
  // twice by no reader.
  Task<bool> push(const std::vector<Spooled>& batch, bool shift) {
    std::int64_t ns = spool_.pushed_ns();
    const std::string body = push_body(batch, now_ns(), shift, ns);
    net::Headers sent = headers();
    sent.add("Content-Type", "application/json");
    const net::Response answer =
        co_await http_.send("POST", options_.url + "/loki/api/v1/push", sent, body);
    if (answer.status == 200 || answer.status == 204) {
      co_await blocking([&] { spool_.done(ns); });
      co_return true;
    }
    const bool too_old =
        answer.status == 400 && (answer.body.find("too far behind") != std::string::npos ||
                                 answer.body.find("too old") != std::string::npos ||
                                 answer.body.find("out of order") != std::string::npos);
    if (too_old && !shift) co_return false;
    throw refused(answer);
  }

  static Error refused(const net::Response& answer) {
    return Error(Code::kUnavailable, "Loki refused")
        .with("status", std::to_string(answer.status))
        .with("answer", answer.body.substr(0, 300));
  }

  // Once when it begins and then every minute, louder long before the week that Loki allows.
  void complain(const Error& error, std::int64_t oldest_ns) {
    const SteadyPoint now = std::chrono::steady_clock::now();
    if (away_ && now < complain_again_) return;
    away_ = true;
    complain_again_ = now + std::chrono::minutes(1);
    const std::int64_t age = (now_ns() - oldest_ns) / 1'000'000'000;
    log::write(age > 3600 ? log::Level::kError : log::Level::kWarn,
               "Loki does not take the audit log; it waits in the spool", error,
               {{"waiting_bytes", spool_.waiting_bytes()}, {"oldest_seconds", age}});
  }

  Task<bj::value> ask(std::string path) {
    const net::Response answer = co_await http_.get(options_.url + path, headers());
    if (answer.status != 200) throw refused(answer);
    co_return json::parse(answer.body, {.bytes = 256 << 20});
  }

  static Error strange() { return Error(Code::kProtocol, "Loki's answer is not as documented"); }

  // In time's order, also for "backward", which chooses the newest ones.
  Task<std::vector<Sample>> query(std::string selector, std::int64_t start, std::int64_t end,
                                  std::size_t limit, std::string direction) {
    const bj::value answer =
        co_await ask("/loki/api/v1/query_range?query=" + url_encode(selector) +
                     "&start=" + std::to_string(start) + "&end=" + std::to_string(end) +
                     "&limit=" + std::to_string(limit) + "&direction=" + direction);
    std::vector<Sample> out;
    try {
      for (const bj::value& stream : answer.at("data").at("result").as_array()) {
        for (const bj::value& value : stream.at("values").as_array()) {
          const auto ns = number(value.at(0).as_string());
          if (!ns) throw strange();
          out.push_back({*ns, std::string(value.at(1).as_string())});
        }
      }
    } catch (const boost::system::system_error&) {
      throw strange();
    }
    std::sort(out.begin(), out.end(), [](const Sample& a, const Sample& b) { return a.ns < b.ns; });
    co_return out;
  }

  // Newest first, until `take` returns false or the chain's beginning was seen.
  Task<void> scan_back(std::string selector, std::int64_t before_ns, std::size_t limit,
                       std::function<bool(const Sample&, const audit::Line&)> take) {
    std::int64_t end = std::min(before_ns, now_ns() + kHour);
    const std::int64_t horizon = now_ns() - kHorizon;
    while (end > horizon) {
      const std::int64_t start = std::max(horizon, end - kWindow);
      const auto batch = co_await query(selector, start, end, limit, "backward");
      for (auto sample = batch.rbegin(); sample != batch.rend(); ++sample) {
        const auto line = audit::read_line(sample->line);
        if (line && (!take(*sample, *line) || line->seq == 1)) co_return;
      }
      end = batch.size() < limit ? start : batch.front().ns;
    }
  }

  Task<std::set<std::string>> organizations() {
    std::set<std::string> found;
    const std::int64_t horizon = now_ns() - kHorizon;
    for (std::int64_t end = now_ns() + kHour; end > horizon; end -= kWindow) {
      const bj::value answer = co_await ask(
          "/loki/api/v1/label/org/values?query=" + url_encode("{app=\"flock-audit\"}") +
          "&start=" + std::to_string(end - kWindow) + "&end=" + std::to_string(end));
      const bj::object& body = answer.as_object();
      const bj::value* values = body.if_contains("data");  // absent when there are none
      if (values == nullptr || !values->is_array()) continue;
      for (const bj::value& value : values->get_array()) {
        if (value.is_string()) found.insert(std::string(value.get_string()));
      }
    }
    co_return found;
  }

  const LokiOptions options_;
  net::HttpClient http_;
  Spool spool_;
  Event arrival_;
  bool away_ = false;
  SteadyPoint complain_again_{};
};

}  // namespace

std::unique_ptr<AuditStore> make_loki_audit_store(Executor executor, LokiOptions options) {
  return std::make_unique<LokiAuditStore>(executor, std::move(options));
}

}  // namespace flock::stores

// SPDX-License-Identifier: Apache-2.0
#include "faults/ledger.h"

#include <charconv>
#include <set>
#include <sstream>

#include "base/error.h"

namespace flock::faults {
namespace {

constexpr const char* kService = "web";
constexpr std::string_view kReason = "shutdown: ";
constexpr std::int64_t kYear = 366LL * 86'400'000;
constexpr std::size_t kMost = 1'000'000;
constexpr std::size_t kFaultsShown = 1000;

constexpr const char* kDone =
    "SELECT count(*) AS done FROM device_commands WHERE org_id = $1 AND state = 'DONE' AND right("
    "id::text, 8) <= lpad(to_hex($2::integer), 8, '0')";
constexpr const char* kCommands =
    "SELECT id, device_id FROM device_commands WHERE org_id = $1 AND state = 'DONE'";

net::ClientOptions patient() {
  net::ClientOptions options;
  options.request_time = Duration(10'000);
  options.repeatable = true;
  return options;
}

void note(std::string& faults, const std::string& text) {
  if (faults.size() < kFaultsShown) faults += (faults.empty() ? "" : "; ") + text;
}

}  // namespace

// What the time series have of one device.
struct Ledger::Found {
  std::array<std::map<std::int64_t, int>, kKinds.size()> times;  // by number
  std::set<std::int64_t> gaps;
};

Ledger::Ledger(Executor executor, const Stack& stack, postgres::Database& db)
    : stack_(stack),
      db_(db),
      series_(stores::make_clickhouse_time_series(executor, stack.time_series())),
      live_(stores::make_valkey_live_state(executor, stack.valkey.address(), "")),
      http_(executor, patient()) {}

Task<std::vector<std::int64_t>> Ledger::ask(std::string sql) {
  net::Headers headers;
  headers.add("X-ClickHouse-User", "default");
  headers.add("X-ClickHouse-Key", testing::ClickHouse::password());
  const net::Response answer = co_await http_.send(
      "POST", stack_.clickhouse.url() + "/?database=flock", std::move(headers), std::move(sql));
  if (answer.status != 200)
    throw Error(Code::kUnavailable, "ClickHouse refused").with("answer", answer.body);
  std::istringstream in(answer.body);
  std::vector<std::int64_t> numbers;
  for (std::int64_t number = 0; in >> number;) numbers.push_back(number);
  co_return numbers;
}

std::int64_t Ledger::expected(const Fleet& fleet, int rounds) {
  std::int64_t sum = 0;
  for (const Kind kind : kKinds) sum += numbered(kind, rounds);
  return sum * static_cast<std::int64_t>(fleet.devices().size());
}

Task<std::int64_t> Ledger::arrived(Fleet& fleet, int rounds) {
  std::int64_t sum = 0;
  const postgres::Rows done = co_await db_.query(
      postgres::Scope::system(), kDone, postgres::Params().text(fleet.org).integer(rounds));
  sum += done.rows.at(0).integer("done");
  const std::string of = " WHERE org = '" + fleet.org + "' AND ", until = std::to_string(rounds);
  const auto count = [&](const std::string& what, const std::string& where) -> Task<std::int64_t> {
    co_return (co_await ask("SELECT count() FROM (SELECT DISTINCT " + what + of + where + ")"))
        .at(0);
  };
  // A gap is one row for several lines.
  sum += (co_await ask("SELECT toInt64(sum(c)) FROM (SELECT any(count) AS c FROM logs" + of +
                       "service = '" + kService + "' AND number <= " + until +
                       " GROUP BY device, number, gap)"))
             .at(0);
  sum +=
      co_await count("device, value FROM metrics", "name = 'uptime_seconds' AND value <= " + until);
  sum += co_await count("device, reason FROM connectivity",
                        "toUInt32OrZero(substring(reason, " + std::to_string(kReason.size() + 1) +
                            ")) BETWEEN 1 AND " + std::to_string(numbered(Kind::kHistory, rounds)));
  co_return sum;
}

Task<void> Ledger::find_rows(const Fleet& fleet, std::map<std::string, Found>& found) {
  const auto times = [&](const std::string& device, Kind kind) -> auto& {
    return found[device].times[static_cast<std::size_t>(kind)];
  };
  const std::int64_t now = to_unix_ms(system_clock().now());
  stores::LogQuery lines;
  lines.subject = {fleet.org, {}, {}, {kService}};
  lines.from_ms = now - kYear;
  lines.to_ms = now + kYear;
  lines.limit = kMost;
  for (const stores::LogRow& row : (co_await series_->logs(lines)).rows) {
    if (row.gap == 0) ++times(row.origin.device, Kind::kLine)[row.number];
    for (std::int64_t i = 0; row.gap != 0 && i < row.count; ++i)
      found[row.origin.device].gaps.insert(row.number + i);
  }
  const postgres::Rows commands =
      co_await db_.query(postgres::Scope::system(), kCommands, postgres::Params().text(fleet.org));
  for (const postgres::Row& row : commands.rows)
    ++times(row.text("device_id"), Kind::kCommand)[command_number(row.text("id"))];
  stores::MetricQuery metrics;
  metrics.subject = {fleet.org, {}, {}, {}};
  metrics.names = {"uptime_seconds"};
  metrics.from_ms = now - kYear;
  metrics.to_ms = now + kYear;
  metrics.limit = kMost;
  for (const stores::MetricPoint& point : co_await series_->range(metrics))
    ++times(point.device, Kind::kTelemetry)[static_cast<std::int64_t>(point.avg)];
  for (const auto& row :
       co_await series_->connectivity(metrics.subject, now - kYear, now + kYear, kMost)) {
    if (!row.reason.starts_with(kReason)) continue;
    ++times(row.origin.device, Kind::kHistory)[std::stoll(row.reason.substr(kReason.size()))];
  }
}

Task<Counts> Ledger::count(Fleet& fleet, SteadyPoint broker_back) {
  Counts counts;
  std::map<std::string, Found> all;
  co_await find_rows(fleet, all);
  for (const auto& device : fleet.devices()) {
    Found& found = all[device->id()];
    const Ears::Told& told = fleet.ears.of(device->id());
    for (const auto& [number, times] : told.commands) counts.repeated += times - 1;
    counts.offline += told.offline;
    for (const Kind kind : kKinds) {
      auto& times = found.times[static_cast<std::size_t>(kind)];
      for (int number = 1; number <= numbered(kind, fleet.rounds()); ++number) {
        ++counts.sent;
        const int seen = times[number];
        const bool gap = kind == Kind::kLine && found.gaps.contains(number);
        counts.received += seen > 0;
        counts.untold += kind == Kind::kCommand && seen > 0 && !told.commands.contains(number);
        counts.repeated += std::max(0, seen - 1);
        counts.gaps += gap;
        if (seen > 0 && gap)
          note(counts.faults, "a line and a gap: " + device->id() + " " + std::to_string(number));
        if (seen > 0 || gap) continue;
        const SteadyPoint acknowledged = device->acknowledged(kind, number);
        if (acknowledged == SteadyPoint::max()) {
          ++counts.unsent;
          note(counts.faults, std::string(name_of(kind)) + " " + std::to_string(number) + " of " +
                                  device->id() + " is with it: " + device->waiting());
          continue;
        }
        const bool broker = acknowledged < broker_back;
        ++(broker ? counts.lost_by_broker : counts.lost);
        if (!broker)
          note(counts.faults,
               std::string(name_of(kind)) + " " + std::to_string(number) + " of " + device->id());
      }
    }
  }
  co_await check_reports(fleet, counts);
  co_return counts;
}

Task<void> Ledger::check_reports(Fleet& fleet, Counts& counts) {
  std::vector<DeviceId> ids;
  for (const auto& device : fleet.devices()) ids.push_back(DeviceId::trusted(device->id()));
  const auto stored = co_await live_->get_reported(ids);
  const std::string newest = std::to_string(fleet.rounds());
  for (std::size_t i = 0; i < stored.size(); ++i) {
    const std::string& id = fleet.devices()[i]->id();
    device::v1::ReportedState state;
    state.ParseFromString(stored[i].value_or(""));
    if (state.error() == newest && fleet.ears.of(id).report == fleet.rounds()) continue;
    ++counts.wrong_reports;
    note(counts.faults, "of " + id + " report " + state.error() + " is stored and " +
                            std::to_string(fleet.ears.of(id).report) + " was told last, not " +
                            newest);
  }
}

}  // namespace flock::faults

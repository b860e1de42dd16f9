// SPDX-License-Identifier: Apache-2.0
// clickhouse.sh's program: both sides into databases of one private server, in turn, three times.
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "async/loop.h"
#include "base/error.h"
#include "base/files.h"
#include "base/id.h"
#include "own_cpu.h"
#include "stores/time_series/clickhouse_statements.h"
#include "stores/time_series/row_encoder.h"
#include "testing/servers.h"

namespace flock {
namespace {

using stores::LogRow;
using stores::MetricRow;
using Clock = std::chrono::steady_clock;

constexpr int kBatch = 50'000;  // rows, as an ingester sends them when it has much to do
constexpr int kDevices = 1000, kNames = 20;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// User and system time of a process, in seconds.
double cpu_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  std::istringstream fields(text.substr(text.rfind(')') + 2));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  double user = 0, system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

double cpu_of_children() {
  rusage usage{};
  ::getrusage(RUSAGE_CHILDREN, &usage);
  const auto of = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

// What a fleet sends: every device its metrics every 30 s, values that wander.
std::vector<MetricRow> telemetry(int count) {
  std::vector<std::string> devices;
  for (int i = 0; i < kDevices; ++i) devices.push_back(new_uuid());
  const std::string org = new_uuid(), fleet = new_uuid();
  const std::int64_t start = to_unix_ms(system_clock().now()) / stores::kDayMs * stores::kDayMs;
  std::vector<MetricRow> rows;
  rows.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    const int name = i % kNames, device = i / kNames % kDevices, round = i / kNames / kDevices;
    MetricRow row;
    row.origin = {org, fleet, devices[static_cast<std::size_t>(device)], name < 12 ? "" : "web"};
    row.name = "metric_" + std::to_string(name);
    row.at_ms = start + std::int64_t{round} * 30'000 + device;
    row.value = std::round(1000 * std::sin(device + name + round / 40.0)) / 1000;
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<LogRow> lines(int count) {
  const std::string org = new_uuid(), fleet = new_uuid();
  std::vector<std::string> devices;
  for (int i = 0; i < 100; ++i) devices.push_back(new_uuid());
  const std::int64_t start = to_unix_ms(system_clock().now()) / stores::kDayMs * stores::kDayMs;
  std::vector<LogRow> rows;
  for (int i = 0; i < count; ++i) {
    LogRow row;
    row.origin = {org, fleet, devices[static_cast<std::size_t>(i % 100)], "web"};
    row.epoch = start;
    row.number = i / 100 + 1;
    row.at_ms = start + std::int64_t{i} * 7;
    row.received_ms = row.at_ms + 900;
    row.source = 1;
    row.level = 2;
    row.text = "request " + new_uuid() + " GET /v1/items/" + std::to_string(i * 7919 % 100'003) +
               " 200 in " + std::to_string(i % 97) + " ms";
    rows.push_back(std::move(row));
  }
  return rows;
}

stores::ClickHouseOptions options(const testing::ClickHouse& server, std::string database) {
  stores::ClickHouseOptions out;
  out.url = server.url();
  out.password = testing::ClickHouse::password();
  out.database = std::move(database);
  return out;
}

std::vector<std::string> client(const testing::ClickHouse& server, const std::string& database) {
  return {"clickhouse-client",
          "--port",
          std::to_string(server.native_port()),
          "--password",
          testing::ClickHouse::password(),
          "--database",
          database};
}

struct Cost {
  double wall = 0, own = 0, server = 0;
};

Cost ours(const testing::ClickHouse& server, const std::vector<MetricRow>& rows,
          const std::string& database) {
  // Made before the clock runs: in an ingester they come out of messages.
  std::vector<stores::Rows> batches;
  for (std::size_t at = 0; at < rows.size(); at += kBatch) {
    const auto from = rows.begin() + static_cast<std::ptrdiff_t>(at);
    const auto left = static_cast<std::size_t>(rows.end() - from);
    batches.emplace_back().metrics.assign(
        from, from + static_cast<std::ptrdiff_t>(std::min<std::size_t>(kBatch, left)));
  }
  Cost cost;
  Loop loop;
  const auto run = [&]() -> Task<void> {
    const auto store =
        stores::make_clickhouse_time_series(loop.executor(), options(server, database));
    co_await store->ping();
    const double own = bench::own_cpu(), theirs = cpu_of(server.pid());
    const auto start = Clock::now();
    for (stores::Rows& batch : batches) co_await store->insert(std::move(batch));
    cost = {seconds_since(start), (bench::own_cpu() - own) / 1e6, cpu_of(server.pid()) - theirs};
  };
  loop.run(run());
  return cost;
}

Cost reference(const testing::ClickHouse& server, const std::string& file,
               const std::string& database) {
  Loop loop;
  const auto schema = [&]() -> Task<void> {
    const auto store =
        stores::make_clickhouse_time_series(loop.executor(), options(server, database));
    co_await store->ping();
  };
  loop.run(schema());
  std::string command;
  for (const std::string& word : client(server, database)) command += word + " ";
  command += "--query '" + std::string(stores::clickhouse::kInsertMetrics.text()) + "' <" + file;
  const double own = cpu_of_children(), theirs = cpu_of(server.pid());
  const auto start = Clock::now();
  testing::run_program({"sh", "-c", command});
  return {seconds_since(start), cpu_of_children() - own, cpu_of(server.pid()) - theirs};
}

void print(const char* who, int run, std::size_t rows, const Cost& cost) {
  const auto n = static_cast<double>(rows);
  std::printf(
      "clickhouse insert, run %d, %-17s %8.0f rows/s, %8.0f rows/s for each core, client "
      "%.2f us/row, server %.2f us/row\n",
      run, who, n / cost.wall, n / (cost.own + cost.server), cost.own * 1e6 / n,
      cost.server * 1e6 / n);
  std::fflush(stdout);
}

void print_sizes(const testing::ClickHouse& server, const std::string& database) {
  Loop loop;
  const auto insert = [&]() -> Task<void> {
    const auto store =
        stores::make_clickhouse_time_series(loop.executor(), options(server, database));
    stores::Rows rows;
    rows.logs = lines(200'000);
    co_await store->insert(std::move(rows));
  };
  loop.run(insert());
  for (const std::string table : {"metrics", "logs"}) {
    std::vector<std::string> optimize = client(server, database), size = optimize;
    optimize.insert(optimize.end(), {"--query", "OPTIMIZE TABLE " + table + " FINAL"});
    testing::run_program(optimize);
    std::string command;
    for (const std::string& word : size) command += word + " ";
    testing::TempDir dir;
    command +=
        "--query \"SELECT round(sum(bytes_on_disk) / sum(rows), 1) FROM system.parts WHERE active"
        " AND database = '" +
        database + "' AND table = '" + table + "'\" >" + dir.file("size");
    testing::run_program({"sh", "-c", command});
    std::printf("clickhouse size: %s %s bytes for each row on disk, merged\n", table.c_str(),
                read_secret_file(dir.file("size")).c_str());
  }
}

int run(int count) {
  testing::ClickHouse server;
  server.start();
  testing::TempDir dir;
  const std::vector<MetricRow> rows = telemetry(count);
  const std::int64_t now = to_unix_ms(system_clock().now());
  stores::RowWriter file;
  const auto encoding = Clock::now();
  const double before = bench::own_cpu();
  for (const MetricRow& row : rows) stores::clickhouse::put(file, row, now);
  std::printf("clickhouse encode: %.0f rows/s, %.3f us/row\n",
              static_cast<double>(count) / seconds_since(encoding),
              (bench::own_cpu() - before) / static_cast<double>(count));
  const std::string path = dir.write("rows", file.take());
  for (int run = 1; run <= 3; ++run) {
    const std::string n = std::to_string(run);
    print("flock", run, rows.size(), ours(server, rows, "ours" + n));
    print("clickhouse-client", run, rows.size(), reference(server, path, "theirs" + n));
  }
  std::printf(
      "(promise: flock at least 200000 rows/s for each core, client and server together)\n");
  print_sizes(server, "ours1");
  return 0;
}

}  // namespace
}  // namespace flock

int main(int argc, char** argv) {
  try {
    return flock::run(argc > 1 ? std::stoi(argv[1]) : 2'000'000);
  } catch (const flock::Error& error) {
    std::fprintf(stderr, "%s\n", error.describe().c_str());
    return 1;
  }
}

// SPDX-License-Identifier: Apache-2.0
// Many devices at once on the stack that bench/scale.sh has started: as many as may have a
// connection run in flock-sim, the others are rows whose messages are replayed over a few
// connections.
//   bench_scale --devices=100000 --connections=19800 ...
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <deque>

#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "scale_crowd.h"
#include "scale_watch.h"
#include "scale_world.h"
#include "testing/process.h"

using namespace flock;
using namespace flock::bench;

namespace {

constexpr std::int64_t kSimMost = 9'900;  // flock-sim asks for two files a device
constexpr std::int64_t kProbes = 20, kBacklogMost = 20'000, kComeASecond = 400;
constexpr double kEverySeconds = 60;  // a device sends a report and its telemetry so often

double seconds_since(SteadyPoint at) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - at).count();
}

class Bench {
 public:
  Bench(Executor executor, ScaleOptions options)
      : executor_(executor), world_(executor, std::move(options)) {
    world_.processes.add("load", ::getpid());
  }

  Task<void> run() {
    const ScaleOptions& options = world_.options;
    std::printf("before any device\n");
    print_memory(world_);
    co_await connect();
    std::vector<std::string> ids =
        co_await world_.insert_devices(options.devices - options.connections);
    std::vector<std::string> probes(ids.end() - kProbes, ids.end());
    ids.resize(ids.size() - kProbes);
    crowd_.emplace(executor_, world_.link("flock-bench"), std::move(ids));
    co_await crowd_->open();
    co_await arrive();
    WatchOptions watching{options.api_url,
                          read_secret_file(options.token_file),
                          options.live_address,
                          read_secret_file(options.live_password_file),
                          world_.link("flock-bench-probe"),
                          std::move(probes)};
    watch_.emplace(std::move(watching));
    while (!watch_->follows()) co_await sleep_for(Duration(20));
    co_await at_their_pace();
    co_await at_most();
    watch_.reset();
    co_await stores();
    co_await crowd_->close();
  }

 private:
  Task<void> until_online(std::int64_t count) {
    const SteadyPoint began = std::chrono::steady_clock::now();
    while (co_await world_.online() < count) {
      if (seconds_since(began) > 400)
        throw Error(Code::kTimeout, "the devices did not come online")
            .with("online", std::to_string(co_await world_.online()));
      co_await sleep_for(Duration(200));
    }
  }

  // Devices with connections: what each costs in memory, and what a fleet that does nothing else
  // costs in time.
  Task<void> connect() {
    const ScaleOptions& options = world_.options;
    const std::vector<Usage> before = world_.processes.now();
    const SteadyPoint began = std::chrono::steady_clock::now();
    const std::int64_t processes = (options.connections + kSimMost - 1) / kSimMost;
    for (std::int64_t i = 0, left = options.connections; i < processes; ++i) {
      const std::int64_t count = left / (processes - i);
      left -= count;
      testing::Process& sim = sims_.emplace_back();
      sim.start({options.sim_program, "--server=" + options.api_url,
                 "--provisioning-key-file=" + options.provisioning_key_file,
                 "--count=" + std::to_string(count), "--name-prefix=sim" + std::to_string(i),
                 "--start-per-second=" + std::to_string(kComeASecond / processes)},
                options.directory + "/sim.log");
      world_.processes.add("flock-sim", sim.pid());
    }
    co_await until_online(options.connections);
    const double took = seconds_since(began);
    const std::vector<Usage> after = world_.processes.now();
    std::printf("%lld devices registered and connected with TLS after %.1f s, %.0f a second\n",
                static_cast<long long>(options.connections), took,
                static_cast<double>(options.connections) / took);
    print_memory(world_, &before, options.connections);
    std::printf("  processor time a device, registration and connection:");
    for (std::size_t i = 0; i < after.size(); ++i) {
      const double began_with = i < before.size() ? before[i].cpu_us : 0;
      std::printf("%s %s %.2f ms", i == 0 ? "" : ",", world_.processes.name(i).c_str(),
                  (after[i].cpu_us - began_with) / 1000 / static_cast<double>(options.connections));
    }
    std::printf("\n");
    // The first report of a device that came just now is due after a minute.
    co_await sleep_for(Duration(
        static_cast<Duration::rep>(1000 * std::max(0.0, kEverySeconds - seconds_since(began)))));
    Meter meter(world_);
    co_await meter.begin();
    co_await sleep_for(Duration(2000 * options.seconds));
    co_await meter.end("these devices at their pace (state, telemetry and keep-alive a minute)");
  }

  Task<void> arrive() {
    Meter meter(world_);
    co_await meter.begin();
    const SteadyPoint began = std::chrono::steady_clock::now();
    co_await bounded(crowd_->arrive());
    co_await until_online(world_.options.devices - kProbes);
    const double took = seconds_since(began);
    const auto count = static_cast<double>(world_.options.devices - world_.options.connections);
    std::printf("%.0f more devices, replayed, come online within %.1f s, %.0f a second\n", count,
                took, count / took);
    co_await meter.end("their hellos and first reports");
    print_memory(world_);
  }

  // Holds the load back while the ingester is behind: the broker drops what no queue has room for.
  Task<Sent> bounded(Task<Sent> sending) {
    TaskScope scope(executor_);
    const std::int64_t sent = crowd_->sent();
    const double stored = (co_await world_.stored()).all;
    scope.spawn("bound", [](Bench& b, std::int64_t s, double st) -> Task<void> {
      for (;;) {
        const double taken = (co_await b.world_.stored()).all - st;
        b.crowd_->hold = static_cast<double>(b.crowd_->sent() - s) - taken > kBacklogMost;
        co_await sleep_for(Duration(100));
      }
    }(*this, sent, stored));
    const Sent out = co_await std::move(sending);
    scope.cancel();
    co_await scope.join();
    crowd_->hold = false;
    co_return out;
  }

  // Returns messages stored a second, until nothing waits any more.
  Task<double> phase(const char* what, Mix mix, double rate, std::int64_t seconds) {
    watch_->take();
    Meter meter(world_);
    co_await meter.begin();
    const Sent sent = co_await bounded(crowd_->send(mix, rate, Duration(1000 * seconds)));
    const double reached = co_await meter.end(what);
    if (rate > 0)
      std::printf("  sent %.0f a second of the %.0f wanted\n",
                  static_cast<double>(sent.messages) / sent.seconds, rate);
    co_await settle();
    Seen seen = watch_->take();
    std::printf(
        "  device to live state: p50 %.1f ms, p99 %.1f ms, %zu probes, %lld later than 10 s\n",
        seen.live.at(0.5), seen.live.at(0.99), seen.live.count(),
        static_cast<long long>(seen.late_probes));
    std::printf("  state change to SSE: p50 %.1f ms, p99 %.1f ms, %zu events, %lld gaps\n",
                seen.events.at(0.5), seen.events.at(0.99), seen.events.count(),
                static_cast<long long>(seen.gaps));
    std::fflush(stdout);
    co_return reached;
  }

  // Until the ingester has what was sent: what is stored grows no faster than the connected devices
  // speak.
  Task<void> settle() {
    const double pace = 2 * static_cast<double>(world_.options.connections) / kEverySeconds;
    for (int i = 0; i < 100; ++i) {
      const double before = (co_await world_.stored()).all;
      co_await sleep_for(Duration(300));
      if ((co_await world_.stored()).all - before < 0.3 * pace * 2 + 60) co_return;
    }
  }

  Task<void> at_their_pace() {
    const auto replayed = static_cast<double>(world_.options.devices - world_.options.connections);
    const std::string what = std::to_string(world_.options.devices) +
                             " devices at their pace, one report in 50 a change";
    co_await phase(what.c_str(), {49, 1, 50}, 2 * replayed / kEverySeconds,
                   2 * world_.options.seconds);
    print_memory(world_);
  }

  Task<void> at_most() {
    const std::int64_t seconds = world_.options.seconds;
    const double reports =
        co_await phase("as many reports as possible, one in 50 a change", {49, 1, 0}, 0, seconds);
    const double changes =
        co_await phase("as many changes as possible, all followed", {0, 1, 0}, 0, seconds);
    co_await phase("half of the most reports", {49, 1, 0}, reports / 2, seconds);
    co_await phase("half of the most changes (promise: SSE p99 under 500 ms)", {0, 1, 0},
                   changes / 2, seconds);
    print_memory(world_);
  }

  Task<void> stores() {
    const Stored stored = co_await world_.stored();
    co_await world_.ask_clickhouse("OPTIMIZE TABLE flock.metrics FINAL");
    const std::string rows = co_await world_.ask_clickhouse(
        "SELECT sum(rows) FROM system.parts WHERE active AND database = 'flock' AND table = "
        "'metrics'");
    const std::string bytes = co_await world_.ask_clickhouse(
        "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'flock' AND table "
        "= 'metrics'");
    const std::string row = co_await world_.ask_postgres(
        "SELECT ((pg_total_relation_size('devices') + pg_total_relation_size('device_labels') + "
        "pg_total_relation_size('device_history')) / (SELECT count(*) FROM devices))::text AS "
        "value");
    std::printf("ClickHouse: %.1f rows a telemetry message, %.1f bytes a row\n",
                std::stod(rows) / stored.telemetry, std::stod(bytes) / std::stod(rows));
    std::printf("PostgreSQL: %s bytes a device, indexes and history included\n", row.c_str());
  }

  Executor executor_;
  World world_;
  std::deque<testing::Process> sims_;
  std::optional<Crowd> crowd_;
  std::optional<Watch> watch_;
};

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  log::set_level(log::Level::kWarn);
  try {
    ScaleOptions options;
    config::Schema schema("FLOCK_SCALE_");
    options.bind(schema);
    config::Sources sources;
    sources.arguments = {argv + 1, argv + argc};
    schema.load(sources);
    Loop loop;
    Bench bench(loop.executor(), std::move(options));
    loop.run(bench.run());
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "Error: %s\n", error.describe().c_str());
    return 1;
  }
}

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

constexpr std::int64_t kSimMost = 10'000;  // devices in one flock-sim, which has one core
constexpr std::int64_t kNew = 1000, kProbes = 20, kBacklogMost = 20'000;
constexpr Duration kLook{50};
constexpr double kSettleSeconds = 60, kSettledMs = 300;
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

  void simulate(const std::string& prefix, std::int64_t count) {
    const ScaleOptions& options = world_.options;
    testing::Process& sim = sims_.emplace_back();
    sim.start({options.sim_program, "--server=" + options.api_url,
               "--provisioning-key-file=" + options.provisioning_key_file,
               "--count=" + std::to_string(count), "--name-prefix=" + prefix},
              options.directory + "/sim.log");
    world_.processes.add("flock-sim", sim.pid());
  }

  // Devices with connections: what each costs in memory, and what a fleet that does nothing else
  // costs in time. Some are new; the others were registered before, which is quicker.
  Task<void> connect() {
    const std::int64_t all = world_.options.connections, fresh = std::min(kNew, all / 2);
    const std::vector<Usage> before = world_.processes.now();
    const SteadyPoint began = std::chrono::steady_clock::now();
    simulate("new", fresh);
    co_await until_online(fresh);
    tell("new devices registered and connected with TLS", fresh, seconds_since(began));
    print_time(world_, before, fresh);
    for (std::int64_t left = all - fresh; left > 0; left -= kSimMost)
      co_await world_.insert_simulated("known" + std::to_string(left), std::min(left, kSimMost));
    const std::vector<Usage> between = world_.processes.now();
    const SteadyPoint again = std::chrono::steady_clock::now();
    for (std::int64_t left = all - fresh; left > 0; left -= kSimMost)
      simulate("known" + std::to_string(left), std::min(left, kSimMost));
    co_await until_online(all);
    tell("known devices got a token and connected", all - fresh, seconds_since(again));
    print_time(world_, between, all - fresh);
    print_memory(world_, &before, all);
    // The first report of a device that came just now is due after a minute.
    co_await sleep_for(Duration(
        static_cast<Duration::rep>(1000 * std::max(0.0, kEverySeconds - seconds_since(again)))));
    Meter meter(world_);
    co_await meter.begin();
    co_await sleep_for(Duration(2000 * world_.options.seconds));
    co_await meter.end("these devices at their pace (state, telemetry and keep-alive a minute)");
  }
  static void tell(const char* what, std::int64_t count, double seconds) {
    std::printf("%lld %s within %.1f s, %.0f a second\n", static_cast<long long>(count), what,
                seconds, static_cast<double>(count) / seconds);
  }

  Task<void> arrive() {
    Meter meter(world_);
    co_await meter.begin();
    const SteadyPoint began = std::chrono::steady_clock::now();
    co_await bounded(crowd_->arrive());
    co_await until_online(world_.options.devices - kProbes);
    tell("more devices, replayed, came online", world_.options.devices - world_.options.connections,
         seconds_since(began));
    co_await meter.end("their hellos and first reports");
    print_memory(world_);
  }

  // Holds the load back while the ingester is behind: the broker drops what no queue has room for.
  Task<Sent> bounded(Task<Sent> sending) {
    TaskScope scope(executor_);
    scope.spawn("bound", hold_back());
    const Sent out = co_await std::move(sending);
    scope.cancel();
    co_await scope.join();
    crowd_->hold = false;
    co_return out;
  }
  Task<void> hold_back() {
    std::deque<Mark> waiting;
    std::int64_t arrived = crowd_->sent();
    for (;;) {
      if (crowd_->last_report().seq > 0) waiting.push_back(crowd_->last_report());
      while (!waiting.empty() &&
             co_await world_.shows(waiting.front().device, waiting.front().seq)) {
        arrived = waiting.front().sent;
        waiting.pop_front();
      }
      crowd_->hold = crowd_->sent() - arrived > kBacklogMost;
      co_await sleep_for(kLook);
    }
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
    co_return reached;
  }

  // Until the ingester has what was sent, and those who follow heard of it.
  Task<void> settle() {
    const Mark last = crowd_->last_report();
    const SteadyPoint began = std::chrono::steady_clock::now();
    while ((watch_->lag() > kSettledMs || !co_await world_.shows(last.device, last.seq)) &&
           seconds_since(began) < kSettleSeconds)
      co_await sleep_for(kLook);
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
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // into a file, too
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

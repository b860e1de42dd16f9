// SPDX-License-Identifier: Apache-2.0
// CPU per QoS 1 message of the whole ingester (decoding, live state, acknowledgement) beside a bare
// consumer that only receives and acknowledges through the same client, one after the other from
// the same broker under the same load. Everything else shares one core, the receiver has the other.
//   bench_ingest [COUNT]
// With arguments "load URL IDS COUNT" it is the load.
#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/files.h"
#include "base/id.h"
#include "base/log.h"
#include "keep_alive.h"
#include "mqtt/client.h"
#include "own_cpu.h"
#include "stores/postgres/statements.h"
#include "targets/target.h"
#include "testing/servers.h"

using namespace flock;

namespace {

using Clock = std::chrono::steady_clock;
constexpr int kDevices = 1000;

void pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) std::fprintf(stderr, "not pinned\n");
}

mqtt::ClientOptions options(const std::string& url, const std::string& id) {
  mqtt::ClientOptions out;
  out.url = url;
  out.client_id = id;
  out.session_expiry = Duration(0);
  out.receive_maximum = 1024;
  return out;
}

// --- The load
// -------------------------------------------------------------------------------------

Task<void> load(std::string url, std::string ids_file, int count) {
  std::vector<device::v1::ReportedState> states;
  std::vector<std::string> ids;
  std::ifstream file(ids_file);
  for (std::string id; file >> id;) {
    ids.push_back(id);
    states.push_back(bench::keep_alive(id));
  }
  const Executor executor = co_await asio::this_coro::executor;
  mqtt::Client client(executor, options(url, "bench-load"));
  TaskScope scope(executor), sending(executor);
  scope.spawn("client", client.run());
  co_await client.wait_connected();
  std::int64_t seq = to_unix_ms(system_clock().now());
  for (int i = 0; i < count; ++i) {
    const std::size_t at = static_cast<std::size_t>(i) % ids.size();
    mqtt::Message message;
    message.topic = "devices/" + ids[at] + "/state";
    states[at].set_seq(++seq);
    states[at].set_at_ms(seq);
    message.payload = states[at].SerializeAsString();
    while (sending.size() >= 500) co_await yield_now();
    sending.spawn("publish", client.publish(std::move(message)));
  }
  co_await sending.join();
  co_await client.disconnect(Duration(1000));
  co_await scope.join();
}

void start_load(const std::string& url, const std::string& ids, int count) {
  if (fork() != 0) return;
  pin(0);
  execl("/proc/self/exe", "bench_ingest", "load", url.c_str(), ids.c_str(),
        std::to_string(count).c_str(), nullptr);
  _exit(1);
}

// --- The receivers
// --------------------------------------------------------------------------------

// CPU and time from the first message to the last.
class Meter {
 public:
  Meter(Executor executor, int count) : done(std::move(executor)), count_(count) {}
  void count(std::size_t messages) {
    if (seen_ == 0 && messages > 0) {
      cpu_ = bench::own_cpu();
      began_ = Clock::now();
    }
    seen_ += static_cast<int>(messages);
    if (seen_ >= count_) done.set();
  }
  // us of CPU a message; prints what else there is to know.
  double result(const char* who) const {
    const double cpu = (bench::own_cpu() - cpu_) / count_;
    const double seconds = std::chrono::duration<double>(Clock::now() - began_).count();
    std::printf("  %s: %.0f messages a second, its core %.0f %% busy\n", who, count_ / seconds,
                cpu * count_ / seconds / 1e4);
    return cpu;
  }
  Event done;

 private:
  int count_, seen_ = 0;
  double cpu_ = 0;
  Clock::time_point began_;
};

// Counts what comes through; the rest is Valkey's.
class CountedLive final : public stores::LiveState {
 public:
  CountedLive(std::unique_ptr<stores::LiveState> live, Meter& meter)
      : live_(std::move(live)), meter_(meter) {}
  Task<std::vector<stores::Put>> put_reported(std::vector<stores::Report> reports) override {
    const std::size_t count = reports.size();
    auto out = co_await live_->put_reported(std::move(reports));
    meter_.count(count);
    co_return out;
  }
  Task<void> mark_told(std::vector<stores::Told> told) override {
    return live_->mark_told(std::move(told));
  }
  Task<std::vector<std::optional<std::string>>> get_reported(std::vector<DeviceId> ids) override {
    return live_->get_reported(std::move(ids));
  }
  Task<void> ping() override { return live_->ping(); }

 private:
  std::unique_ptr<stores::LiveState> live_;
  Meter& meter_;
};

struct Servers {
  flock::testing::Postgres postgres;
  flock::testing::Valkey valkey;
  flock::testing::Mosquitto mosquitto;
  flock::testing::TempDir dir;
  std::string org = new_uuid(), fleet = new_uuid();
  std::string ids() const { return dir.file("ids"); }
};

Task<void> make_devices(postgres::Database& db, const Servers& servers) {
  using postgres::Params;
  const auto system = postgres::Scope::system();
  std::vector<std::string> ids;
  std::ofstream file(servers.ids());
  for (int i = 0; i < kDevices; ++i) file << ids.emplace_back(new_uuid()) << "\n";
  co_await db.migrate();
  co_await db.query(system, postgres::sql::kOrganizationInsert,
                    Params().text(servers.org).text(servers.org).text(servers.org));
  co_await db.query(system, "INSERT INTO fleets(id, org_id, name, slug) VALUES ($1, $2, 'f', 'f')",
                    Params().text(servers.fleet).text(servers.org));
  co_await db.query(
      system,
      "INSERT INTO devices(id, org_id, fleet_id, name, public_key, architecture) SELECT id, $2, "
      "$3, id::text, id::text, 'arm64' FROM unnest($1::uuid[]) AS n(id)",
      Params().texts(ids).text(servers.org).text(servers.fleet));
}

Task<void> bare(const Servers& servers, int count, double& cpu) {
  const Executor executor = co_await asio::this_coro::executor;
  mqtt::Client client(executor, options(servers.mosquitto.url(), "bench-bare"));
  Meter meter(executor, count);
  TaskScope scope(executor);
  scope.spawn("client", client.run());
  co_await client.wait_connected();
  mqtt::Subscription subscription;
  subscription.filter = "$share/ingester/devices/+/state";
  co_await client.subscribe(subscription, [&](mqtt::Delivery delivery) {
    meter.count(1);
    delivery.ack();
  });
  start_load(servers.mosquitto.url(), servers.ids(), count);
  co_await meter.done.wait();
  cpu = meter.result("bare consumer");
  co_await client.disconnect(Duration(1000));
  co_await scope.join();
}

Task<void> ingester(Servers& servers, int count, double& cpu) {
  const Executor executor = co_await asio::this_coro::executor;
  targets::Settings settings;
  settings.ingester_spool_directory = servers.dir.file("ingester");
  postgres::Options database;
  database.url = servers.postgres.url();
  database.password = Secret(read_secret_file(servers.postgres.password_file()));
  postgres::Database db(executor, database);
  // The first reports of all devices are changes, which keep-alives are not: not counted.
  for (const bool counted : {false, true}) {
    const int messages = counted ? count : 2 * kDevices;
    Meter meter(executor, messages);
    CountedLive live(stores::make_valkey_live_state(executor, servers.valkey.address(), ""), meter);
    const auto series = stores::make_memory_time_series();
    mqtt::Client bus(executor, options(servers.mosquitto.url(), "bench-ingester"));
    TaskScope scope(executor);
    scope.spawn("bus", bus.run());
    co_await bus.wait_connected();
    const auto target = targets::make_ingester_target(
        targets::Parts{executor, settings, db, live, *series, bus,
                       crypto::Key::generate(crypto::Key::Kind::kP256)});
    co_await target->start();
    start_load(servers.mosquitto.url(), servers.ids(), messages);
    co_await meter.done.wait();
    if (counted) cpu = meter.result("ingester");
    co_await target->drain();
    co_await target->stop();
    co_await bus.disconnect(Duration(1000));
    scope.cancel();
    co_await scope.join();
  }
}

}  // namespace

int main(int argc, char** argv) {
  log::set_level(log::Level::kWarn);
  if (argc == 5 && std::string(argv[1]) == "load") {
    Loop loop;
    loop.run(load(argv[2], argv[3], std::atoi(argv[4])));
    return 0;
  }
  const int count = argc > 1 ? std::atoi(argv[1]) : 200'000;
  pin(0);
  Servers servers;
  servers.postgres.start();
  servers.valkey.start();
  servers.mosquitto.start();
  pin(1);
  {
    Loop loop;
    loop.run([](Servers& s) -> Task<void> {
      postgres::Options database;
      database.url = s.postgres.url();
      database.password = Secret(read_secret_file(s.postgres.password_file()));
      postgres::Database db(co_await asio::this_coro::executor, database);
      co_await make_devices(db, s);
    }(servers));
  }
  for (int run = 1; run <= 3; ++run) {
    double alone = 0, whole = 0;
    Loop loop;
    loop.run(bare(servers, count, alone));
    Loop other;
    other.run(ingester(servers, count, whole));
    std::printf(
        "ingest cpu per report, run %d: whole ingester %.2f us, bare consumer %.2f us, ratio %.2f "
        "(promise: at most 2.0)\n",
        run, whole, alone, whole / alone);
    std::fflush(stdout);
  }
}

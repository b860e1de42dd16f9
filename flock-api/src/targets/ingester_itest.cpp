// SPDX-License-Identifier: Apache-2.0
// The ingester alone over the real broker, PostgreSQL and Valkey: what devices send arrives once,
// whatever is away meanwhile.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/files.h"
#include "base/id.h"
#include "flock/device/v1/device.pb.h"
#include "flock/internal/v1/internal.pb.h"
#include "stores/postgres/statements.h"
#include "targets/target.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::targets {
namespace {

using device::v1::DeviceEvent;
using device::v1::LogBatch;
using device::v1::LogGap;
using device::v1::ReportedState;
using device::v1::TelemetryBatch;
using flock::testing::run_task;
using postgres::Params;
using postgres::Scope;

// One set of servers for the program; a test that stops one starts it again.
struct Servers {
  flock::testing::Postgres postgres;
  flock::testing::Mosquitto mosquitto;
  flock::testing::Valkey valkey;
  Servers() {
    postgres.start();
    mosquitto.start();
    valkey.start();
  }
  postgres::Options database() const {
    postgres::Options options;
    options.url = postgres.url();
    options.password = Secret(read_secret_file(postgres.password_file()));
    return options;
  }
  mqtt::ClientOptions bus(const std::string& id) const {
    mqtt::ClientOptions options;
    options.url = mosquitto.url();
    options.client_id = id;
    options.backoff_first = options.backoff_max = Duration(50);
    // A session that outlives its test would keep its share of every shared subscription.
    options.session_expiry = Duration(0);
    options.unacknowledged_most = mqtt::kAnyNumber;  // as the process has it
    return options;
  }
};

Task<void> eventually(std::string what, std::function<Task<bool>()> condition) {
  const SteadyPoint end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!co_await condition()) {
    if (std::chrono::steady_clock::now() > end)
      throw Error(Code::kTimeout, "did not happen in time: " + what);
    co_await sleep_for(Duration(20));
  }
}

std::int64_t now_ms() { return to_unix_ms(system_clock().now()); }

// In memory, and away or refusing on demand.
class FlakySeries final : public stores::TimeSeries {
 public:
  bool away = false;
  std::string refused;  // a batch with a line of this text is refused whole
  int inserts = 0;

  Task<void> insert(stores::Rows rows) override {
    if (away) throw Error(Code::kUnavailable, "the time series are away");
    for (const stores::LogRow& row : rows.logs)
      if (!refused.empty() && row.text == refused)
        throw Error(Code::kInvalidArgument, "no such line");
    ++inserts;
    co_await memory_->insert(std::move(rows));
  }
  Task<std::vector<stores::MetricPoint>> latest(stores::MetricQuery q) override {
    return memory_->latest(std::move(q));
  }
  Task<std::vector<stores::MetricPoint>> range(stores::MetricQuery q) override {
    return memory_->range(std::move(q));
  }
  Task<stores::LogPage> logs(stores::LogQuery q) override { return memory_->logs(std::move(q)); }
  Task<std::vector<stores::LogRow>> arrived(stores::LogQuery q, std::int64_t from) override {
    return memory_->arrived(std::move(q), from);
  }
  Task<std::vector<stores::ConnectivityRow>> connectivity(stores::Subject s, std::int64_t from,
                                                          std::int64_t to,
                                                          std::size_t limit) override {
    return memory_->connectivity(std::move(s), from, to, limit);
  }
  Task<std::vector<stores::UpdateRow>> updates(stores::Subject s, std::int64_t from,
                                               std::int64_t to, std::size_t limit) override {
    return memory_->updates(std::move(s), from, to, limit);
  }
  Task<void> expire(stores::Expiry expiry) override { return memory_->expire(std::move(expiry)); }
  Task<void> ping() override { return memory_->ping(); }

 private:
  std::unique_ptr<stores::TimeSeries> memory_ = stores::make_memory_time_series();
};

// Ingesters over one set of stores, and what they tell the rest of the backend.
class Site {
 public:
  Site(Executor e, Servers& s)
      : executor(e),
        servers(s),
        db(e, s.database()),
        live(stores::make_valkey_live_state(e, s.valkey.address(), "")),
        bus(e, s.bus("ingester-" + new_uuid())),
        devices_bus(e, s.bus("devices-" + new_uuid())),
        ears(e, s.bus("ears-" + new_uuid())),
        scope(e) {
    settings.ingester_spool_directory = dir.file("ingester");
    settings.presence_every = Duration(200);
    settings.presence_return = Duration(0);
  }

  Task<void> open() {
    co_await db.migrate();
    bus.on_connection([this](bool up, const std::string&) { connections += up ? 1 : 0; });
    for (mqtt::Client* client : {&bus, &devices_bus, &ears}) {
      scope.spawn("bus", client->run());
      co_await client->wait_connected();
    }
    mqtt::Subscription told;
    told.filter = "flock/internal/v1/device/#";
    co_await ears.subscribe(told, [this](mqtt::Delivery delivery) {
      const std::string topic =
          delivery.message.topic.substr(std::string("flock/internal/v1/").size());
      ++heard[topic];
      if (topic == "device/presence") {
        internal::v1::DevicePresence presence;
        presence.ParseFromString(delivery.message.payload);
        turns[presence.device_id()] +=
            (turns[presence.device_id()].empty() ? "" : " ") + presence.reason();
      }
      last[topic] = delivery.message.payload;
      delivery.ack();
    });
    co_await db.query(Scope::system(), postgres::sql::kOrganizationInsert,
                      Params().text(org).text(org).text(org));
    co_await db.query(Scope::system(),
                      "INSERT INTO fleets(id, org_id, name, slug) VALUES ($1, $2, 'f', 'f')",
                      Params().text(fleet).text(org));
    co_await start();
  }
  Task<void> start() {
    Parts parts{executor,
                settings,
                db,
                *live,
                series,
                bus,
                crypto::Key::generate(crypto::Key::Kind::kP256)};
    parts.connections = [this] { return connections; };
    target = make_ingester_target(std::move(parts));
    co_await target->start();
  }
  Task<void> restart() {
    co_await target->drain();
    co_await target->stop();
    target.reset();
    co_await start();
  }
  Task<void> close() {
    if (target) {
      co_await target->drain();
      co_await target->stop();
    }
    scope.cancel();
    co_await scope.join();
  }

  Task<std::string> device() {
    const std::string id = new_uuid();
    co_await db.query(Scope::system(),
                      "INSERT INTO devices(id, org_id, fleet_id, name, public_key, architecture) "
                      "VALUES ($1::uuid, $2, $3, $1::uuid::text, $1::uuid::text, 'amd64')",
                      Params().text(id).text(org).text(fleet));
    co_return id;
  }
  Task<void> send(std::string topic, std::string payload) {
    mqtt::Message message;
    message.topic = std::move(topic);
    message.payload = std::move(payload);
    co_await devices_bus.publish(std::move(message));
  }
  Task<void> send(std::string id, const char* leaf, std::string payload) {
    co_await send("devices/" + id + "/" + leaf, std::move(payload));
  }
  Task<void> report(std::string id, std::int64_t seq, std::string release = "") {
    ReportedState state;
    state.set_seq(seq);
    state.set_at_ms(seq);
    state.set_release_id(release);
    state.set_phase(ReportedState::IDLE);
    co_await send(id, "state", state.SerializeAsString());
  }
  Task<void> tell(std::string id, DeviceEvent::Kind kind, std::int64_t seq) {
    DeviceEvent event;
    event.set_seq(seq);
    event.set_at_ms(now_ms());
    event.set_kind(kind);
    co_await send(id, "events", event.SerializeAsString());
  }
  // Lines `first`... of the service `web`, each its number as text.
  static LogBatch lines(std::int64_t first, int count, std::size_t bytes = 0) {
    LogBatch batch;
    auto* stream = batch.add_streams();
    stream->set_service("web");
    stream->set_epoch(1);
    for (int i = 0; i < count; ++i) {
      auto* line = stream->add_lines();
      line->set_number(first + i);
      line->set_at_ms(now_ms());
      line->set_source(device::v1::LogLine::STDOUT);
      line->set_text(std::to_string(first + i) + std::string(bytes, '.'));
    }
    return batch;
  }
  Task<std::vector<stores::LogRow>> logs(std::string id) {
    stores::LogQuery query;
    query.subject = {org, {}, {id}, {}};
    query.from_ms = now_ms() - 3'600'000;
    query.to_ms = now_ms() + 3'600'000;
    query.limit = 1000;
    std::vector<stores::LogRow> rows;
    for (;;) {
      stores::LogPage page = co_await series.logs(query);
      for (auto& row : page.rows) rows.push_back(std::move(row));
      if (page.next.empty()) co_return rows;
      query.after = page.next;
    }
  }
  // How often each number of a line is there: lines and, negative, gaps.
  Task<std::map<std::int64_t, int>> numbers(std::string id) {
    std::map<std::int64_t, int> out;
    for (const stores::LogRow& row : co_await logs(id))
      for (std::int64_t i = 0; i < row.count; ++i) out[row.number + i] += row.gap == 0 ? 1 : -100;
    co_return out;
  }
  Task<void> until_lines(std::string id, std::size_t count) {
    const auto there = [this, id, count]() -> Task<bool> {
      co_return (co_await numbers(id)).size() == count;
    };
    co_await eventually(std::to_string(count) + " lines", there);
  }
  Task<std::string> online(std::string id) {
    const auto rows = co_await db.query(Scope::system(), "SELECT online FROM devices WHERE id = $1",
                                        Params().text(id));
    co_return rows.rows.at(0).boolean("online") ? "online" : "offline";
  }
  Task<void> until(std::string what, std::function<bool()> condition) {
    co_await eventually(what, [condition]() -> Task<bool> { co_return condition(); });
  }
  std::vector<std::string> quarantined() const {
    std::vector<std::string> out;
    const std::string folder = dir.file("ingester/quarantine");
    if (!std::filesystem::exists(folder)) return out;
    for (const auto& file : std::filesystem::directory_iterator(folder))
      out.push_back(read_file(file.path()).value_or(""));
    return out;
  }

  Executor executor;
  Servers& servers;
  Settings settings;
  flock::testing::TempDir dir;
  postgres::Database db;
  std::unique_ptr<stores::LiveState> live;
  FlakySeries series;
  mqtt::Client bus, devices_bus, ears;
  TaskScope scope;
  std::unique_ptr<Target> target;
  const std::string org = new_uuid(), fleet = new_uuid();
  std::uint64_t connections = 0;
  std::map<std::string, int> heard;  // by topic
  std::map<std::string, std::string> last, turns;
};

class Ingester : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (flock::testing::require({"postgres", "initdb", "psql", "mosquitto", "redis-server"}))
      servers = std::make_unique<Servers>();
  }
  static void TearDownTestSuite() { servers.reset(); }
  void SetUp() override {
    if (!servers) GTEST_SKIP() << "the servers are not installed";
  }
  void on_site(const std::function<Task<void>(Site&)>& body) {
    run_task(
        [&]() -> Task<void> {
          Site site(co_await asio::this_coro::executor, *servers);
          std::exception_ptr failure;
          try {
            co_await site.open();
            co_await body(site);
          } catch (...) {
            failure = std::current_exception();
          }
          co_await site.close();
          if (failure) std::rethrow_exception(failure);
        },
        Duration(60'000));
  }
  static std::unique_ptr<Servers> servers;
};
std::unique_ptr<Servers> Ingester::servers;

TEST_F(Ingester, StoresTelemetryAndLogsAsTheyWere) {
  on_site([](Site& site) -> Task<void> {
    const std::string id = co_await site.device();
    TelemetryBatch batch;
    auto* point = batch.add_points();
    point->set_at_ms(now_ms());
    point->mutable_host()->set_cpu_ratio(0.25);
    point->mutable_host()->set_throttled(true);
    auto* service = point->add_services();
    service->set_service("web");
    service->set_memory_bytes(1 << 20);
    co_await site.send(id, "telemetry", batch.SerializeAsString());
    co_await site.send(id, "telemetry", batch.SerializeAsString());  // again is once
    LogBatch logs = Site::lines(1, 3);
    auto* gap = logs.mutable_streams(0)->add_gaps();
    gap->set_first_number(4);
    gap->set_count(5);
    gap->set_reason(LogGap::RATE_LIMITED);
    gap->set_from_ms(now_ms());
    co_await site.send(id, "logs", logs.SerializeAsString());
    stores::MetricQuery query;
    query.subject = {site.org, {}, {id}, {}};
    query.from_ms = now_ms() - 60'000;
    query.to_ms = now_ms() + 60'000;
    co_await site.until_lines(id, 8);
    std::vector<stores::MetricPoint> points;
    co_await eventually("the values", [&]() -> Task<bool> {
      points = co_await site.series.range(query);
      co_return points.size() == 3;
    });
    for (const auto& p : points) {
      const double value = p.name == "cpu_ratio" ? 0.25 : p.name == "throttled" ? 1 : 1 << 20;
      EXPECT_EQ(p.avg, value) << p.name;
      EXPECT_EQ(p.service, p.name == "memory_bytes" ? "web" : "");
    }
    const auto numbers = co_await site.numbers(id);
    EXPECT_EQ(numbers.size(), 8u);
    EXPECT_EQ(numbers.at(3), 1);
    EXPECT_EQ(numbers.at(4), -100);
    const auto rows = co_await site.logs(id);
    EXPECT_EQ(rows.at(0).text, "1");
    EXPECT_EQ(rows.at(0).origin.fleet, site.fleet);
  });
}

TEST_F(Ingester, AClockThatIsAYearOffPoisonsNothing) {
  on_site([](Site& site) -> Task<void> {
    const std::int64_t year = 365LL * 86'400'000;
    for (const std::int64_t off : {year, -year}) {
      const std::string id = co_await site.device();
      LogBatch logs = Site::lines(1, 2);
      for (auto& line : *logs.mutable_streams(0)->mutable_lines())
        line.set_at_ms(now_ms() + off + line.number());
      co_await site.send(id, "logs", logs.SerializeAsString());
      co_await site.until_lines(id, 2);
      const auto rows = co_await site.logs(id);
      EXPECT_EQ(rows.at(1).at_ms - rows.at(0).at_ms, 1);
    }
    // A report from the future hides none that comes when the clock is right again.
    const std::string id = co_await site.device();
    co_await site.report(id, now_ms() + year, "wrong");
    co_await sleep_for(Duration(5));
    co_await site.report(id, now_ms() + 10, "right");
    co_await eventually("the right report", [&]() -> Task<bool> {
      std::vector<DeviceId> ids{DeviceId::trusted(id)};
      const auto stored = co_await site.live->get_reported(ids);
      ReportedState state;
      co_return state.ParseFromString(stored.at(0).value_or("")) && state.release_id() == "right";
    });
  });
}

// Every line is there once, or in a gap: while the store is away, over a restart, and when the disk
// was too small for all of it.
TEST_F(Ingester, KeepsOnDiskWhatTheTimeSeriesCannotTake) {
  on_site([](Site& site) -> Task<void> {
    const std::string id = co_await site.device();
    site.series.away = true;
    for (int i = 0; i < 20; ++i)
      co_await site.send(id, "logs", Site::lines(1 + i * 10, 10).SerializeAsString());
    co_await sleep_for(Duration(500));
    EXPECT_EQ((co_await site.numbers(id)).size(), 0u);
    co_await site.restart();
    co_await site.send(id, "logs", Site::lines(201, 10).SerializeAsString());
    site.series.away = false;
    co_await site.until_lines(id, 210);
    for (const auto& [number, times] : co_await site.numbers(id)) EXPECT_EQ(times, 1) << number;
    co_await site.send(id, "logs", Site::lines(211, 1).SerializeAsString());
    co_await site.until_lines(id, 211);
  });
}

TEST_F(Ingester, AFullSpoolLeavesExactGaps) {
  on_site([](Site& site) -> Task<void> {
    co_await site.target->drain();
    site.target.reset();
    site.settings.ingester_spool_bytes = 1 << 20;
    co_await site.start();
    const std::string id = co_await site.device();
    site.series.away = true;
    constexpr int kBatches = 100, kLines = 20;
    for (int i = 0; i < kBatches; ++i)
      co_await site.send(id, "logs", Site::lines(1 + i * kLines, kLines, 1000).SerializeAsString());
    co_await sleep_for(Duration(1000));
    site.series.away = false;
    co_await site.until_lines(id, kBatches * kLines);
    int lines = 0, gaps = 0;
    for (const auto& [number, times] : co_await site.numbers(id)) {
      EXPECT_TRUE(times == 1 || times == -100) << number << " " << times;
      (times == 1 ? lines : gaps) += 1;
    }
    EXPECT_EQ(lines + gaps, kBatches * kLines);
    EXPECT_GT(gaps, kBatches * kLines / 4);
    EXPECT_GT(lines, kBatches * kLines / 5);
  });
}

TEST_F(Ingester, PoisonGoesAsideAndBlocksNobody) {
  on_site([](Site& site) -> Task<void> {
    const std::string id = co_await site.device();
    site.series.refused = "2";
    co_await site.send(id, "logs", Site::lines(1, 1).SerializeAsString());
    co_await site.until_lines(id, 1);
    for (const char* leaf : {"state", "events", "telemetry", "logs"})
      co_await site.send(id, leaf, "\xff\xff");
    co_await site.send(id, "telemetry", std::string(300 * 1024, 'x'));
    co_await site.send("devices/nobody/state", "x");
    TaskScope together(site.executor);
    for (int i = 2; i <= 6; ++i)
      together.spawn("line", site.send(id, "logs", Site::lines(i, 1).SerializeAsString()));
    co_await together.join();
    co_await site.report(id, now_ms());
    co_await site.until("the report behind it", [&] { return site.turns[id] == "connected"; });
    co_await site.until_lines(id, 5);
    EXPECT_FALSE((co_await site.numbers(id)).contains(2));
    co_await site.until("all is put aside", [&] { return site.quarantined().size() == 7; });
    const auto files = site.quarantined();
    std::string all;
    for (const std::string& file : files) {
      all += file.substr(0, file.find('\n'));
      EXPECT_LT(file.size(), 66u * 1024);
    }
    for (const char* part : {"devices/nobody/state", "the time series refused it", "no such line",
                             "it has more than 262144 bytes", "received_at",
                             "it is not the message that belongs on this topic"})
      EXPECT_NE(all.find(part), std::string::npos) << part << "\n" << all;
  });
}

TEST_F(Ingester, TellsEachTurnOnceWithItsReason) {
  on_site([](Site& site) -> Task<void> {
    const std::string id = co_await site.device();
    const std::int64_t t = now_ms();
    co_await site.tell(id, DeviceEvent::ONLINE, t + 11);
    co_await site.tell(id, DeviceEvent::ONLINE, t + 11);
    co_await site.report(id, t + 12);
    co_await site.tell(id, DeviceEvent::OFFLINE, t + 13);
    co_await site.report(id, t + 12);
    co_await site.tell(id, DeviceEvent::ONLINE, t + 21);
    co_await site.tell(id, DeviceEvent::LOST, t + 10);  // of the connection before
    co_await site.tell(id, DeviceEvent::OFFLINE, t + 13);
    co_await site.tell(id, DeviceEvent::COMMAND, t + 22);
    co_await site.until("the last message", [&] { return site.heard["device/command"] == 1; });
    EXPECT_EQ(site.turns[id], "connected clean_stop connected");
    co_await site.tell(id, DeviceEvent::LOST, t + 20);
    co_await site.tell(id, DeviceEvent::ONLINE, t + 31);
    // Nothing more is heard of it.
    co_await site.db.query(Scope::system(),
                           "UPDATE devices SET silent_after_ms = 300 WHERE id = $1",
                           Params().text(id));
    co_await site.until("silence", [&] { return site.turns[id].ends_with("silent"); });
    EXPECT_EQ(site.turns[id], "connected clean_stop connected connection_lost connected silent");
    co_await site.report(id, t + 32);
    co_await site.until("it speaks", [&] { return site.turns[id].ends_with("connected"); });
    co_await eventually("the history", [&]() -> Task<bool> {
      co_return (
          co_await site.series.connectivity({site.org, {}, {id}, {}}, t - 60'000, t + 600'000, 100))
              .size() == 7u;
    });
  });
}

// A broker that is stopped sends the last wills of all devices, and the ingester finds them in its
// session when the broker is back.
TEST_F(Ingester, AStoppedBrokerMakesNobodyOffline) {
  on_site([](Site& site) -> Task<void> {
    co_await site.target->drain();
    site.target.reset();
    site.settings.presence_return = Duration(3000);
    co_await site.start();
    const std::string back = co_await site.device(), gone = co_await site.device();
    const std::int64_t t = now_ms();
    for (const std::string& id : {back, gone}) co_await site.tell(id, DeviceEvent::ONLINE, t + 11);
    co_await site.until("both are there", [&] { return site.turns.size() == 2; });
    site.servers.mosquitto.stop();
    site.servers.mosquitto.start();
    co_await site.devices_bus.wait_connected();
    co_await site.until("the ingester is back", [&] { return site.connections == 2; });
    for (const std::string& id : {back, gone}) co_await site.tell(id, DeviceEvent::LOST, t + 10);
    co_await site.tell(back, DeviceEvent::ONLINE, t + 21);
    co_await site.until("who did not come back is gone",
                        [&] { return site.turns[gone].ends_with("connection_lost"); });
    EXPECT_EQ(site.turns[back], "connected");
    EXPECT_EQ(co_await site.online(back), "online");
  });
}

TEST_F(Ingester, TelemetryGoesOnWhilePostgresIsAwayAndReportsWait) {
  on_site([](Site& site) -> Task<void> {
    const std::string id = co_await site.device();
    co_await site.send(id, "logs", Site::lines(1, 1).SerializeAsString());
    co_await site.until_lines(id, 1);
    site.servers.postgres.kill9();
    co_await site.send(id, "logs", Site::lines(2, 1).SerializeAsString());
    TaskScope waiting(site.executor);
    waiting.spawn("hello", site.tell(id, DeviceEvent::ONLINE, now_ms()));
    co_await site.until_lines(id, 2);
    co_await sleep_for(Duration(300));
    EXPECT_EQ(site.turns[id], "");
    site.servers.postgres.start();
    co_await site.until("the hello", [&] { return site.turns[id] == "connected"; });
    co_await waiting.join();
    site.servers.valkey.kill9();
    const std::int64_t seq = now_ms();
    co_await site.report(id, seq, "r1");
    co_await sleep_for(Duration(300));
    EXPECT_EQ(site.heard["device/state"], 0);
    site.servers.valkey.start();
    co_await site.until("the report", [&] { return site.heard["device/state"] > 0; });
  });
}

TEST_F(Ingester, TellsChangesOnceAndWhatBecameOfCommands) {
  on_site([](Site& site) -> Task<void> {
    const std::string id = co_await site.device();
    const std::int64_t t = now_ms();
    for (int i = 1; i <= 5; ++i) co_await site.report(id, t + i, "r1");
    co_await site.report(id, t + 6, "r2");
    co_await site.report(id, t + 7, "r2");
    co_await site.report(id, t + 8, "r1");
    co_await site.report(id, t + 4, "late");
    DeviceEvent event;
    event.set_seq(t + 9);
    event.set_kind(DeviceEvent::COMMAND);
    event.mutable_command()->set_command_id("c1");
    event.mutable_command()->set_state(device::v1::CommandResult::DONE);
    co_await site.send(id, "events", event.SerializeAsString());
    event.Clear();
    event.set_seq(t + 10);
    event.set_kind(DeviceEvent::SERVICE_EXITED);
    event.set_service("web");
    event.mutable_exit()->set_code(3);
    co_await site.send(id, "events", event.SerializeAsString());
    event.Clear();
    event.set_seq(t + 11);
    event.set_at_ms(now_ms() + 60'000);  // it sorts behind its hello
    event.set_kind(DeviceEvent::SHUTDOWN);
    event.set_detail("reboot");
    co_await site.send(id, "events", event.SerializeAsString());
    co_await site.until("all is told", [&] { return site.heard["device/service_exited"] == 1; });
    EXPECT_EQ(site.heard["device/state"], 3);
    internal::v1::CommandResulted result;
    EXPECT_TRUE(result.ParseFromString(site.last["device/command"]));
    EXPECT_EQ(result.result().command_id() + result.org_id() + result.device_id(),
              "c1" + site.org + id);
    internal::v1::ServiceExited exited;
    EXPECT_TRUE(exited.ParseFromString(site.last["device/service_exited"]));
    EXPECT_EQ(exited.exit().code(), 3);
    EXPECT_EQ(exited.fleet_id(), site.fleet);
    const stores::Subject subject{site.org, {}, {id}, {}};
    co_await eventually("the history", [&]() -> Task<bool> {
      const auto rows = co_await site.series.connectivity(subject, t - 60'000, t + 600'000, 100);
      co_return rows.size() == 2 && rows.at(1).reason == "shutdown: reboot";
    });
    const auto updates = co_await site.series.updates(subject, t - 60'000, t + 600'000, 100);
    EXPECT_EQ(updates.size(), 3u);
    if (!updates.empty()) EXPECT_EQ(updates[0].phase + updates[0].release, "IDLEr1");
  });
}

// A crowd that comes back at once costs a statement for a batch, not for a device.
TEST_F(Ingester, ACrowdComesOnlineInBatches) {
  on_site([](Site& site) -> Task<void> {
    constexpr int kDevices = 3000;  // many times what may be in flight
    std::vector<std::string> ids;
    for (int i = 0; i < kDevices; ++i) ids.push_back(new_uuid());
    co_await site.db.query(
        Scope::system(),
        "INSERT INTO devices(id, org_id, fleet_id, name, public_key, architecture) SELECT id, $2, "
        "$3, id::text, id::text, 'amd64' FROM unnest($1::uuid[]) AS n(id)",
        Params().texts(ids).text(site.org).text(site.fleet));
    const std::int64_t t = now_ms();
    TaskScope together(site.executor);
    for (const std::string& id : ids)
      together.spawn("hello", site.tell(id, DeviceEvent::ONLINE, t));
    co_await together.join();
    co_await site.until("all are told", [&] { return site.heard["device/presence"] >= kDevices; });
    EXPECT_EQ(site.heard["device/presence"], kDevices);
    co_await eventually("the history", [&]() -> Task<bool> {
      co_return (co_await site.series.connectivity({site.org, {}, {}, {}}, t - 60'000, t + 600'000,
                                                   10'000))
              .size() == std::size_t{kDevices};
    });
  });
}

}  // namespace
}  // namespace flock::targets

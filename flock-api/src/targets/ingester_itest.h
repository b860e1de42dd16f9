// SPDX-License-Identifier: Apache-2.0
// What the ingester's integration tests share: the real broker, PostgreSQL and Valkey, ingesters
// over them, and time series that are away on demand.
#pragma once

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

namespace flock::targets::ingester_itest {

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

inline Task<void> eventually(std::string what, std::function<Task<bool>()> condition) {
  const SteadyPoint end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!co_await condition()) {
    if (std::chrono::steady_clock::now() > end)
      throw Error(Code::kTimeout, "did not happen in time: " + what);
    co_await sleep_for(Duration(20));
  }
}

inline std::int64_t now_ms() { return to_unix_ms(system_clock().now()); }

// In memory, and away or refusing on demand.
class FlakySeries final : public stores::TimeSeries {
 public:
  bool away = false;
  bool hangs = false;   // whoever asks waits for kTime
  std::string refused;  // a batch with a line of this text is refused whole
  int inserts = 0, tries = 0;
  static constexpr Duration kTime{3000};

  Task<void> insert(stores::Rows rows) override {
    ++tries;
    co_await hang();
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
  Task<stores::Summary> summary(stores::SummaryQuery q) override {
    return memory_->summary(std::move(q));
  }
  Task<stores::OperatorAnswer> ask(stores::OperatorQuery q) override {
    return memory_->ask(std::move(q));
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
  Task<void> ping() override { co_await hang(); }

 private:
  Task<void> hang() {
    if (!hangs) co_return;
    co_await sleep_for(kTime);
    throw Error(Code::kTimeout, "the time series do not answer");
  }
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
  // How the device came or went last, when that was in the last minute.
  Task<std::string> turned(std::string id) {
    const auto rows = co_await db.query(
        Scope::system(),
        "SELECT coalesce(turned_reason, 'nothing') AS reason FROM devices WHERE id = $1 AND "
        "(turned_at IS NULL OR abs(extract(epoch FROM now() - turned_at)) < 60)",
        Params().text(id));
    co_return rows.empty() ? "long ago" : rows.rows.front().text("reason");
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
  inline static std::unique_ptr<Servers> servers;
};

}  // namespace flock::targets::ingester_itest

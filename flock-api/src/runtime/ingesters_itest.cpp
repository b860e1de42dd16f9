// SPDX-License-Identifier: Apache-2.0
// Three ingesters as processes of their own, killed one after the other under load.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <map>

#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/files.h"
#include "base/id.h"
#include "flock/device/v1/device.pb.h"
#include "flock/internal/v1/internal.pb.h"
#include "mqtt/client.h"
#include "stores/live_state/live_state.h"
#include "stores/postgres/database.h"
#include "stores/postgres/statements.h"
#include "stores/time_series/time_series.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::runtime {
namespace {

using device::v1::DeviceEvent;
using flock::testing::free_port;
using flock::testing::run_task;
using postgres::Params;
using postgres::Scope;

constexpr int kDevices = 20;

struct Stack {
  flock::testing::Postgres postgres;
  flock::testing::Mosquitto mosquitto;
  flock::testing::Valkey valkey;
  flock::testing::ClickHouse clickhouse;
  flock::testing::TempDir dir;
  std::string clickhouse_password;

  Stack() {
    postgres.start();
    mosquitto.start();
    valkey.start();
    clickhouse.start();
    clickhouse_password = dir.write("clickhouse", flock::testing::ClickHouse::password());
    flock::testing::run_program({FLOCK_API_PROGRAM, "generate-keys", dir.file("keys")});
  }
};

class Replica {
 public:
  Replica(const Stack& stack, std::string name) : stack_(stack), name_(std::move(name)) {}
  void start() {
    ::setenv("FLOCK_REPLICA", name_.c_str(), 1);
    process_.start(
        {FLOCK_API_PROGRAM, "--target=ingester", "--postgres.url=" + stack_.postgres.url(),
         "--postgres.password_file=" + stack_.postgres.password_file(),
         "--live_state.address=" + stack_.valkey.address(), "--mqtt.url=" + stack_.mosquitto.url(),
         "--clickhouse.url=" + stack_.clickhouse.url(),
         "--clickhouse.password_file=" + stack_.clickhouse_password,
         "--keys.directory=" + stack_.dir.file("keys"), "--registry.url=http://127.0.0.1:1",
         "--admin.listen=127.0.0.1:" + std::to_string(admin_),
         "--audit.directory=" + stack_.dir.file("audit"),
         "--audit.spool_directory=" + stack_.dir.file("audit-spool"),
         "--ingester.spool_directory=" + stack_.dir.file("ingester-" + name_)},
        log());
    ::unsetenv("FLOCK_REPLICA");
  }
  void kill9() { process_.stop(SIGKILL); }
  void stop() { process_.stop(); }
  std::string log() const { return stack_.dir.file(name_ + ".log"); }
  // Ready: says so in its log each time it starts.
  bool connected(int times) const {
    const std::string text = read_file(log(), 16 << 20).value_or("");
    int seen = 0;
    for (std::size_t at = 0; (at = text.find("the broker is connected", at)) != std::string::npos;
         ++at)
      ++seen;
    return seen >= times;
  }

 private:
  const Stack& stack_;
  const std::string name_;
  const int admin_ = free_port();
  flock::testing::Process process_;
};

// Devices that number everything they say.
class Fleet {
 public:
  Fleet(Executor executor, const Stack& stack, postgres::Database& db)
      : link_(executor, options(stack, "devices")),
        ears_(executor, options(stack, "ears")),
        db_(db),
        scope_(executor),
        sending_(executor) {}

  Task<void> open() {
    for (mqtt::Client* client : {&link_, &ears_}) {
      scope_.spawn("bus", client->run());
      co_await client->wait_connected();
    }
    mqtt::Subscription told;
    told.filter = "flock/internal/v1/device/#";
    co_await ears_.subscribe(told, [this](mqtt::Delivery delivery) {
      hear(delivery.message);
      delivery.ack();
    });
    for (int i = 0; i < kDevices; ++i) ids.push_back(new_uuid());
    co_await db_.migrate();
    co_await db_.query(Scope::system(), postgres::sql::kOrganizationInsert,
                       Params().text(org).text(org).text(org));
    co_await db_.query(Scope::system(),
                       "INSERT INTO fleets(id, org_id, name, slug) VALUES ($1, $2, 'f', 'f')",
                       Params().text(fleet_).text(org));
    co_await db_.query(
        Scope::system(),
        "INSERT INTO devices(id, org_id, fleet_id, name, public_key, architecture) SELECT id, $2, "
        "$3, id::text, id::text, 'amd64' FROM unnest($1::uuid[]) AS n(id)",
        Params().texts(ids).text(org).text(fleet_));
  }

  // Everybody reports, tells and logs, until stop().
  Task<void> speak() {
    begun = seq_ = to_unix_ms(system_clock().now());
    for (const std::string& id : ids) say(id, "events", event(DeviceEvent::ONLINE, 0));
    while (!stopping) {
      ++rounds;
      for (const std::string& id : ids) {
        say(id, "state", report());
        say(id, "events", event(DeviceEvent::COMMAND, rounds));
        say(id, "logs", line());
      }
      co_await sleep_for(Duration(20));
    }
    co_await sending_.join();
  }
  Task<void> close() {
    scope_.cancel();
    co_await scope_.join();
  }

  std::vector<std::string> ids;
  const std::string org = new_uuid();
  bool stopping = false;
  int rounds = 0;
  std::int64_t begun = 0;
  std::map<std::string, std::map<std::string, int>> commands;  // by device: how often each was told
  std::map<std::string, std::string> turns;
  std::int64_t last_seq() const { return seq_; }

 private:
  static mqtt::ClientOptions options(const Stack& stack, const std::string& id) {
    mqtt::ClientOptions out;
    out.url = stack.mosquitto.url();
    out.client_id = id;
    out.receive_maximum = 1000;
    return out;
  }
  void hear(const mqtt::Message& message) {
    if (message.topic.ends_with("device/command")) {
      internal::v1::CommandResulted result;
      result.ParseFromString(message.payload);
      ++commands[result.device_id()][result.result().command_id()];
    }
    if (message.topic.ends_with("device/presence")) {
      internal::v1::DevicePresence presence;
      presence.ParseFromString(message.payload);
      turns[presence.device_id()] += presence.reason() + " ";
    }
  }
  void say(const std::string& id, const char* leaf, std::string payload) {
    mqtt::Message message;
    message.topic = "devices/" + id + "/" + leaf;
    message.payload = std::move(payload);
    sending_.spawn("say", link_.publish(std::move(message)));
  }
  std::string report() {
    device::v1::ReportedState state;
    state.set_seq(++seq_);
    state.set_at_ms(to_unix_ms(system_clock().now()));
    state.set_phase(device::v1::ReportedState::IDLE);
    state.set_error(std::to_string(rounds / 10));  // something changes now and then
    return state.SerializeAsString();
  }
  std::string event(DeviceEvent::Kind kind, int number) {
    DeviceEvent event;
    event.set_seq(++seq_);
    event.set_kind(kind);
    if (kind == DeviceEvent::COMMAND)
      event.mutable_command()->set_command_id(std::to_string(number));
    return event.SerializeAsString();
  }
  std::string line() {
    device::v1::LogBatch batch;
    auto* stream = batch.add_streams();
    stream->set_service("web");
    stream->set_epoch(1);
    auto* line = stream->add_lines();
    line->set_number(rounds);
    line->set_at_ms(to_unix_ms(system_clock().now()));
    line->set_text(std::to_string(rounds));
    return batch.SerializeAsString();
  }

  mqtt::Client link_, ears_;
  postgres::Database& db_;
  TaskScope scope_, sending_;
  const std::string fleet_ = new_uuid();
  std::int64_t seq_ = 0;
};

Task<void> until(std::string what, std::function<Task<bool>()> condition) {
  for (int i = 0; !co_await condition(); ++i) {
    if (i > 600) throw Error(Code::kTimeout, "did not happen in time: " + what);
    co_await sleep_for(Duration(100));
  }
}

Task<bool> all_reported(stores::LiveState& live, const Fleet& fleet) {
  std::vector<DeviceId> ids;
  for (const std::string& id : fleet.ids) ids.push_back(DeviceId::trusted(id));
  for (const auto& value : co_await live.get_reported(ids)) {
    device::v1::ReportedState state;
    // The last round's reports are the newest of all.
    if (!state.ParseFromString(value.value_or("")) ||
        state.seq() <= fleet.last_seq() - 3L * kDevices)
      co_return false;
  }
  co_return true;
}

// Lines of all devices; each number of each device once, or `faults` says which not.
Task<std::size_t> count_lines(stores::TimeSeries& series, const Fleet& fleet, std::string& faults) {
  std::size_t lines = 0;
  faults.clear();
  for (const std::string& id : fleet.ids) {
    std::map<std::int64_t, int> numbers;
    stores::LogQuery query;
    query.subject = {fleet.org, {}, {id}, {}};
    query.from_ms = fleet.begun - 60'000;
    query.to_ms = fleet.begun + 3'600'000;
    query.limit = 1000;
    for (;;) {
      const stores::LogPage page = co_await series.logs(query);
      for (const stores::LogRow& row : page.rows) ++numbers[row.number];
      if (page.next.empty()) break;
      query.after = page.next;
    }
    lines += numbers.size();
    for (int i = 1; i <= fleet.rounds; ++i)
      if (numbers[i] != 1)
        faults += id + " " + std::to_string(i) + ": " + std::to_string(numbers[i]) + "\n";
  }
  co_return lines;
}

TEST(Ingesters, KilledOneAtATimeUnderLoadLoseNothing) {
  if (!flock::testing::require(
          {"postgres", "initdb", "psql", "mosquitto", "redis-server", "clickhouse-server"}))
    GTEST_SKIP() << "the servers are not installed";
  Stack stack;
  const auto body = [&]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    postgres::Options options;
    options.url = stack.postgres.url();
    options.password = Secret(read_secret_file(stack.postgres.password_file()));
    postgres::Database db(executor, options);
    const auto live = stores::make_valkey_live_state(executor, stack.valkey.address(), "");
    stores::ClickHouseOptions clickhouse;
    clickhouse.url = stack.clickhouse.url();
    clickhouse.password = flock::testing::ClickHouse::password();
    const auto series = stores::make_clickhouse_time_series(executor, clickhouse);
    Fleet fleet(executor, stack, db);
    co_await fleet.open();
    std::vector<std::unique_ptr<Replica>> replicas;
    for (const char* name : {"a", "b", "c"}) {
      replicas.push_back(std::make_unique<Replica>(stack, name));
      replicas.back()->start();
    }
    const auto connected = [](const Replica& replica, int times) {
      return until("an ingester is connected",
                   [&replica, times]() -> Task<bool> { co_return replica.connected(times); });
    };
    for (const auto& replica : replicas) co_await connected(*replica, 1);
    co_await sleep_for(Duration(500));
    TaskScope speaking(executor);
    speaking.spawn("fleet", fleet.speak());
    for (const auto& replica : replicas) {
      co_await sleep_for(Duration(700));
      replica->kill9();
      co_await sleep_for(Duration(700));
      replica->start();
      co_await connected(*replica, 2);
    }
    // One that is stopped in order leaves nothing behind, and is not needed again.
    replicas[1]->stop();
    co_await sleep_for(Duration(700));
    fleet.stopping = true;
    co_await speaking.join();

    co_await until("all states", [&] { return all_reported(*live, fleet); });
    co_await until("all events", [&]() -> Task<bool> {
      for (const std::string& id : fleet.ids)
        if (fleet.commands[id].size() != static_cast<std::size_t>(fleet.rounds)) co_return false;
      co_return true;
    });
    std::string faults;
    const std::size_t all = fleet.ids.size() * static_cast<std::size_t>(fleet.rounds);
    co_await until("all lines", [&]() -> Task<bool> {
      co_return co_await count_lines(*series, fleet, faults) == all;
    });
    EXPECT_EQ(faults.substr(0, 2000), "");
    for (const std::string& id : fleet.ids) EXPECT_EQ(fleet.turns[id], "connected ");
    RecordProperty("messages", std::to_string(3 * all));
    co_await fleet.close();
  };
  try {
    run_task(body, Duration(120'000));
  } catch (const std::exception& error) {
    ADD_FAILURE() << error.what() << "\n"
                  << read_file(stack.dir.file("a.log"), 16 << 20).value_or("").substr(0, 3000);
  }
}

}  // namespace
}  // namespace flock::runtime

// SPDX-License-Identifier: Apache-2.0
// Customer events through the program itself and a real broker: what a device says becomes one,
// nothing is lost over kills, and no organization is told of another's things.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <algorithm>
#include <boost/json.hpp>
#include <filesystem>
#include <functional>
#include <map>
#include <set>

#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/files.h"
#include "base/id.h"
#include "base/json.h"
#include "domain/customer_events.h"
#include "flock/device/v1/device.pb.h"
#include "flock/internal/v1/internal.pb.h"
#include "mqtt/client.h"
#include "stores/postgres/database.h"
#include "stores/postgres/statements.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::runtime {
namespace {

namespace bj = boost::json;
using flock::testing::free_port;
using flock::testing::run_task;
using postgres::Params;
using postgres::Scope;

struct Stack {
  flock::testing::Postgres postgres;
  flock::testing::Mosquitto mosquitto;
  flock::testing::Valkey valkey;
  flock::testing::TempDir dir;

  Stack() {
    postgres.start();
    mosquitto.start();
    valkey.start();
    flock::testing::run_program({FLOCK_API_PROGRAM, "generate-keys", dir.file("keys")});
  }
};

class Program {
 public:
  Program(const Stack& stack, std::string targets) : stack_(stack), targets_(std::move(targets)) {}
  void start() {
    ::setenv("FLOCK_REPLICA", "a", 1);
    process_.start(
        {FLOCK_API_PROGRAM, "--target=" + targets_, "--postgres.url=" + stack_.postgres.url(),
         "--postgres.password_file=" + stack_.postgres.password_file(),
         "--live_state.address=" + stack_.valkey.address(), "--mqtt.url=" + stack_.mosquitto.url(),
         "--clickhouse.kind=memory", "--keys.directory=" + stack_.dir.file("keys"),
         "--registry.url=http://127.0.0.1:1", "--admin.listen=127.0.0.1:" + std::to_string(admin_),
         "--ingester.spool_directory=" + stack_.dir.file("ingester"),
         "--events_gateway.quarantine_directory=" + quarantine()},
        stack_.dir.file("log"));
    ::unsetenv("FLOCK_REPLICA");
  }
  void kill9() { process_.stop(SIGKILL); }
  void stop() { process_.stop(); }
  std::string quarantine() const { return stack_.dir.file("quarantine"); }
  std::string log() const { return read_file(stack_.dir.file("log"), 16 << 20).value_or(""); }

 private:
  const Stack& stack_;
  const std::string targets_;
  const int admin_ = free_port();
  flock::testing::Process process_;
};

struct Tenant {
  std::string org = new_uuid(), fleet = new_uuid(), device = new_uuid();
};

// Who publishes, and who reads as a customer's program would.
class World {
 public:
  World(Executor executor, const Stack& stack)
      : backend_(executor, options(stack, "backend")),
        customer_(executor, options(stack, "customer")),
        db_(executor, database(stack)),
        scope_(executor),
        sending_(executor) {}

  Task<void> open() {
    for (mqtt::Client* client : {&backend_, &customer_}) {
      scope_.spawn("bus", client->run());
      co_await client->wait_connected();
    }
    mqtt::Subscription events;
    events.filter = "flock/events/v1/#";
    co_await customer_.subscribe(events, [this](mqtt::Delivery delivery) {
      const bj::value event = json::parse(delivery.message.payload);
      const std::string id(event.at("id").as_string());
      EXPECT_EQ(delivery.message.content_type, "application/json");
      EXPECT_EQ(delivery.message.user_properties.at(0), std::pair(std::string("event_id"), id));
      const auto [known, is_new] = seen.try_emplace(id, delivery.message);
      if (is_new) order.push_back(event);
      EXPECT_EQ(known->second.payload, delivery.message.payload) << "a repeat says the same";
      EXPECT_EQ(known->second.topic, delivery.message.topic);
      if (!is_new) ++repeats;
      delivery.ack();
      if (is_new && on_new) on_new();
    });
    co_await db_.migrate();
  }
  Task<void> close() {
    co_await sending_.join();
    scope_.cancel();
    co_await scope_.join();
  }

  Task<Tenant> make_tenant(std::string device_name) {
    const Tenant tenant;
    co_await db_.query(Scope::system(), postgres::sql::kOrganizationInsert,
                       Params().text(tenant.org).text(tenant.org).text(tenant.org));
    co_await db_.query(Scope::system(),
                       "INSERT INTO fleets(id, org_id, name, slug) VALUES ($1, $2, 'F', 'f')",
                       Params().text(tenant.fleet).text(tenant.org));
    co_await db_.query(
        Scope::system(),
        "INSERT INTO devices(id, org_id, fleet_id, name, labels, public_key, architecture) VALUES "
        "($1::uuid, $2, $3, $4, '{\"site\": \"oslo\"}', $1::uuid::text, 'amd64')",
        Params().text(tenant.device).text(tenant.org).text(tenant.fleet).text(device_name));
    co_return tenant;
  }

  struct Rollout {
    std::string release = new_uuid(), deployment = new_uuid(), id = new_uuid();
  };
  Task<Rollout> make_rollout(Tenant tenant) {
    const Rollout rollout;
    co_await db_.query(Scope::system(),
                       "INSERT INTO releases(id, org_id, version, compose, workload, digest) "
                       "VALUES ($1, $2, '1.8.2', 'x', '{}', 'x')",
                       Params().text(rollout.release).text(tenant.org));
    co_await db_.query(
        Scope::system(),
        "INSERT INTO deployments(id, org_id, release_id, fleet_id, soak_ms, failure_timeout_ms, "
        "max_failed_ratio) VALUES ($1, $2, $3, $4, 0, 0, 1)",
        Params()
            .text(rollout.deployment)
            .text(tenant.org)
            .text(rollout.release)
            .text(tenant.fleet));
    co_await db_.query(Scope::system(),
                       "INSERT INTO rollouts(id, org_id, deployment_id, release_id, fleet_id) "
                       "VALUES ($1, $2, $3, $4, $5)",
                       Params()
                           .text(rollout.id)
                           .text(tenant.org)
                           .text(rollout.deployment)
                           .text(rollout.release)
                           .text(tenant.fleet));
    co_return rollout;
  }

  // Returns when the broker has it.
  Task<void> publish(std::string topic, std::string payload) {
    mqtt::Message message;
    message.topic = std::move(topic);
    message.payload = std::move(payload);
    co_await backend_.publish(std::move(message));
  }
  Task<void> tell(const char* leaf, std::string payload) {
    return publish(std::string("flock/internal/v1/") + leaf, std::move(payload));
  }
  // Does not wait.
  void send(const char* leaf, std::string payload) {
    sending_.spawn("send", tell(leaf, std::move(payload)));
  }

  Task<void> until(std::string what, std::function<bool()> condition) {
    for (int i = 0; !condition(); ++i) {
      if (i == 2000) throw Error(Code::kTimeout, "it never came: " + what);
      co_await sleep_for(Duration(10));
    }
  }
  // The newest event of this type.
  const bj::object* find(std::string_view type) const {
    for (auto at = order.rbegin(); at != order.rend(); ++at)
      if (at->at("type").as_string() == type) return &at->as_object();
    return nullptr;
  }
  Task<const bj::object*> wait_for(std::string type) {
    co_await until(type, [&] { return find(type) != nullptr; });
    co_return find(type);
  }

  std::map<std::string, mqtt::Message> seen;  // by the event's id
  std::vector<bj::value> order;
  int repeats = 0;
  std::function<void()> on_new;  // after each event that was not there yet

 private:
  static mqtt::ClientOptions options(const Stack& stack, const std::string& id) {
    mqtt::ClientOptions out;
    out.url = stack.mosquitto.url();
    out.client_id = id + new_uuid();
    out.receive_maximum = 1000;
    return out;
  }
  static postgres::Options database(const Stack& stack) {
    postgres::Options out;
    out.url = stack.postgres.url();
    out.password = Secret(read_secret_file(stack.postgres.password_file()));
    return out;
  }

  mqtt::Client backend_, customer_;
  postgres::Database db_;
  TaskScope scope_, sending_;
};

std::string presence(const Tenant& tenant, bool online, std::int64_t at_ms) {
  internal::v1::DevicePresence message;
  message.set_org_id(tenant.org);
  message.set_device_id(tenant.device);
  message.set_online(online);
  message.set_reason(online ? "connected" : "clean_stop");
  message.set_at_ms(at_ms);
  return message.SerializeAsString();
}

// The line of JSON before each message that was put aside.
std::multiset<std::string> reasons_in(const std::string& folder) {
  std::multiset<std::string> out;
  if (!std::filesystem::exists(folder)) return out;
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    const std::string text = read_file(file.path().string()).value_or("");
    const std::size_t end = text.find('\n');
    if (end == std::string::npos) continue;  // not written yet
    out.insert(std::string(json::parse(text.substr(0, end)).at("reason").as_string()));
  }
  return out;
}

class EventsGateway : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!flock::testing::require({"postgres", "initdb", "psql", "mosquitto", "redis-server"}))
      GTEST_SKIP() << "the servers are not installed";
    stack = std::make_unique<Stack>();
  }
  std::unique_ptr<Stack> stack;
};

TEST_F(EventsGateway, TellsCustomersWhatADeviceDoes) {
  run_task(
      [&]() -> Task<void> {
        World world(co_await asio::this_coro::executor, *stack);
        co_await world.open();
        const Tenant tenant = co_await world.make_tenant("gw-1");
        Program program(*stack, "ingester,events-gateway");
        program.start();
        const std::string topics = "devices/" + tenant.device + "/";
        const std::int64_t now = to_unix_ms(system_clock().now());
        device::v1::DeviceEvent hello;
        hello.set_seq(now);
        hello.set_at_ms(now);
        hello.set_kind(device::v1::DeviceEvent::ONLINE);
        // Until the targets are there: the broker keeps nothing for who never was.
        while (world.find("device.online") == nullptr) {
          co_await world.publish(topics + "events", hello.SerializeAsString());
          co_await sleep_for(Duration(100));
        }
        const bj::object& online = *world.find("device.online");
        EXPECT_EQ(online.at("org_id").as_string(), tenant.org);
        EXPECT_EQ(online.at("timestamp").as_string(), to_rfc3339(from_unix_ms(now)));
        EXPECT_EQ(
            online.at("data"),
            (bj::value{{"device",
                        {{"id", tenant.device}, {"name", "gw-1"}, {"labels", {{"site", "oslo"}}}}},
                       {"fleet", {{"id", tenant.fleet}, {"slug", "f"}}},
                       {"reason", "connected"}}));
        EXPECT_EQ(world.seen.at(std::string(online.at("id").as_string())).topic,
                  "flock/events/v1/device/online");
        device::v1::ReportedState report;
        report.set_seq(now + 1);
        report.set_at_ms(now + 1);
        report.set_phase(device::v1::ReportedState::IDLE);
        co_await world.publish(topics + "state", report.SerializeAsString());
        const bj::object* changed = co_await world.wait_for("device.state_changed");
        EXPECT_EQ(changed->at("timestamp").as_string(), to_rfc3339(from_unix_ms(now + 1)));
        EXPECT_EQ(changed->at("data").at("reported").at("phase").as_string(), "IDLE");
        hello.set_seq(now + 2);
        hello.set_kind(device::v1::DeviceEvent::OFFLINE);
        co_await world.publish(topics + "events", hello.SerializeAsString());
        const bj::object* offline = co_await world.wait_for("device.offline");
        EXPECT_EQ(offline->at("data").at("reason").as_string(), "clean_stop");
        program.stop();
        co_await world.close();
      },
      Duration(60'000));
}

TEST_F(EventsGateway, TellsCustomersOfDeploymentsAndRollouts) {
  run_task(
      [&]() -> Task<void> {
        World world(co_await asio::this_coro::executor, *stack);
        co_await world.open();
        const Tenant tenant = co_await world.make_tenant("gw-1");
        const World::Rollout rollout = co_await world.make_rollout(tenant);
        Program program(*stack, "events-gateway");
        program.start();
        internal::v1::DeploymentCreated created;
        created.set_org_id(tenant.org);
        created.set_deployment_id(rollout.deployment);
        created.set_at_ms(to_unix_ms(system_clock().now()));
        while (world.order.empty()) {
          co_await world.tell("deployment/created", created.SerializeAsString());
          co_await sleep_for(Duration(100));
        }
        bj::object data{{"deployment", {{"id", rollout.deployment}}},
                        {"release", {{"id", rollout.release}, {"version", "1.8.2"}}},
                        {"fleet", {{"id", tenant.fleet}, {"slug", "f"}}}};
        EXPECT_EQ(world.find("deployment.created")->at("data"), bj::value(data));
        internal::v1::RolloutState state;
        state.set_org_id(tenant.org);
        state.set_rollout_id(rollout.id);
        state.set_state("COMPLETED");
        co_await world.tell("rollout/state", state.SerializeAsString());
        const bj::object* completed = co_await world.wait_for("rollout.completed");
        data["rollout"] = {{"id", rollout.id}};
        EXPECT_EQ(completed->at("data"), bj::value(data));
        program.stop();
        co_await world.close();
      },
      Duration(60'000));
}

TEST_F(EventsGateway, KilledInABurstItLosesNothingAndRepeatsUnderTheSameId) {
  constexpr int kRounds = 5, kEvents = 1200;  // of a round
  run_task(
      [&]() -> Task<void> {
        World world(co_await asio::this_coro::executor, *stack);
        co_await world.open();
        const Tenant tenant = co_await world.make_tenant("gw-1");
        Program program(*stack, "events-gateway");
        program.start();
        std::int64_t at = to_unix_ms(system_clock().now());
        while (world.order.empty()) {
          co_await world.tell("device/presence", presence(tenant, true, at));
          co_await sleep_for(Duration(100));
        }
        std::set<std::string> wanted;
        for (int round = 0; round < kRounds; ++round) {
          // When some are through: of its batch, a part has reached the customer, and nothing was
          // acknowledged yet.
          bool killed = false;
          world.on_new = [&, until = world.seen.size() + 100] {
            if (killed || world.seen.size() < until) return;
            killed = true;
            program.kill9();
          };
          for (int i = 0; i < kEvents; ++i) {
            const std::string payload = presence(tenant, i % 2 == 0, ++at);
            wanted.insert(domain::read_internal_event("device/presence", payload)->id);
            world.send("device/presence", payload);
          }
          co_await world.until("the kill", [&] { return killed; });
          co_await sleep_for(Duration(100));  // more comes while it is down
          program.start();
        }
        world.on_new = {};
        const auto missing = [&] {
          return std::count_if(wanted.begin(), wanted.end(),
                               [&](const auto& id) { return !world.seen.contains(id); });
        };
        co_await world.until("every event", [&] { return missing() == 0; });
        EXPECT_EQ(world.seen.size(), wanted.size() + 1) << "an event that nobody told";
        EXPECT_TRUE(reasons_in(program.quarantine()).empty());
        EXPECT_GT(world.repeats, 0) << "the kills proved nothing";
        std::printf("%d internal messages, %d kills: 0 lost, %d repeated under the same id\n",
                    kRounds * kEvents, kRounds, world.repeats);
        program.stop();
        // What happens while it is stopped waits, too.
        const std::string late = presence(tenant, true, ++at);
        co_await world.tell("device/presence", late);
        program.start();
        const std::string id = domain::read_internal_event("device/presence", late)->id;
        co_await world.until("the late one", [&] { return world.seen.contains(id); });
        program.stop();
        co_await world.close();
      },
      Duration(120'000));
}

TEST_F(EventsGateway, TellsNobodyOfAnotherOrganizationsThingsAndPutsNonsenseAside) {
  run_task(
      [&]() -> Task<void> {
        World world(co_await asio::this_coro::executor, *stack);
        co_await world.open();
        const Tenant one = co_await world.make_tenant("of-one"),
                     other = co_await world.make_tenant("of-other");
        Program program(*stack, "events-gateway");
        program.start();
        const std::int64_t begin = to_unix_ms(system_clock().now());
        while (world.order.empty()) {
          co_await world.tell("device/presence", presence(one, true, begin));
          co_await sleep_for(Duration(100));
        }
        Tenant mixed = one;
        mixed.device = other.device;
        Tenant unknown = one;
        unknown.device = new_uuid();
        internal::v1::RolloutState rollout;
        rollout.set_org_id(one.org);
        rollout.set_rollout_id(new_uuid());
        rollout.set_state("FAILED");
        co_await world.tell("device/presence", presence(mixed, true, begin + 1));
        co_await world.tell("device/presence", presence(unknown, true, begin + 2));
        co_await world.tell("device/presence", "\xff\xff");
        co_await world.tell("device/later", "a kind of a later version");
        co_await world.tell("rollout/state", rollout.SerializeAsString());
        co_await world.tell("device/presence", presence(other, true, begin + 3));
        co_await world.tell("device/presence", presence(one, false, begin + 4));
        co_await world.wait_for("device.offline");
        co_await world.until("what is put aside",
                             [&] { return reasons_in(program.quarantine()).size() >= 4; });
        EXPECT_EQ(reasons_in(program.quarantine()),
                  (std::multiset<std::string>{"it is not the message that belongs on this topic",
                                              "its organization has no such device",
                                              "its organization has no such device",
                                              "its organization has no such rollout"}));
        for (const bj::value& event : world.order) {
          const bool of_one = event.at("org_id").as_string() == one.org;
          const bj::value& device = event.at("data").at("device");
          EXPECT_EQ(device.at("name").as_string(), of_one ? "of-one" : "of-other");
          EXPECT_EQ(device.at("id").as_string(), of_one ? one.device : other.device);
        }
        EXPECT_EQ(world.order.size(), 3u);
        program.stop();
        co_await world.close();
      },
      Duration(60'000));
}

TEST_F(EventsGateway, WaitsForTheDatabaseAndLosesNothing) {
  run_task(
      [&]() -> Task<void> {
        World world(co_await asio::this_coro::executor, *stack);
        co_await world.open();
        const Tenant tenant = co_await world.make_tenant("gw-1");
        Program program(*stack, "events-gateway");
        program.start();
        const std::int64_t begin = to_unix_ms(system_clock().now());
        while (world.order.empty()) {
          co_await world.tell("device/presence", presence(tenant, true, begin));
          co_await sleep_for(Duration(100));
        }
        stack->postgres.kill9();
        for (int i = 1; i <= 20; ++i)
          co_await world.tell("device/presence", presence(tenant, i % 2 == 0, begin + i));
        co_await world.until("the gateway waits", [&] {
          return program.log().find("events for customers wait") != std::string::npos;
        });
        EXPECT_EQ(world.seen.size(), 1u);
        stack->postgres.start();
        co_await world.until("all of them", [&] { return world.seen.size() == 21u; });
        program.stop();
        co_await world.close();
      },
      Duration(60'000));
}

}  // namespace
}  // namespace flock::runtime

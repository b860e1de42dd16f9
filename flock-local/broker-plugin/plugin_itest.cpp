// SPDX-License-Identifier: Apache-2.0
// The plugin inside a real Mosquitto, together with password_file and acl_file.
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "async/event.h"
#include "async/scope.h"
#include "base/id.h"
#include "crypto/jwt.h"
#include "mqtt/bus_contract.h"
#include "mqtt/client.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock {
namespace {

using flock::testing::code_of_task;
using flock::testing::run_task;

const std::string kIssuer = "http://issuer.example";

// Nothing: it was taken.
Task<std::optional<Code>> code_of_publish(Task<void> publishing) {
  try {
    co_await std::move(publishing);
  } catch (const Error& error) {
    co_return error.code();
  }
  co_return std::nullopt;
}

class BrokerPlugin : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!flock::testing::require({"mosquitto", "mosquitto_passwd"}))
      GTEST_SKIP() << "mosquitto is not installed";
    crypto::JwkSet set;
    set.add(key);
    const std::string passwords =
        dir.write("passwords",
                  "flock-api:api-password\nflock-ingester:ingester-password\n"
                  "flock-events-gateway:gateway-password\nflock-events:events-password\n");
    flock::testing::run_program({"mosquitto_passwd", "-U", passwords});
    ::testing::Test::RecordProperty("plugin", FLOCK_AUTH_SO);
    flock::testing::Mosquitto::Options options;
    options.extra = "allow_anonymous false\npassword_file " + passwords +
                    "\nacl_file " FLOCK_AUTH_ACL "\nplugin " FLOCK_AUTH_SO
                    "\nplugin_opt_jwks_file " +
                    dir.write("jwks.json", set.to_json()) + "\nplugin_opt_issuer " + kIssuer + "\n";
    flock::testing::run_program({"chmod", "-R", "a+rX", dir.path()});
    broker = std::make_unique<flock::testing::Mosquitto>(options);
    broker->start();
  }

  std::string token(const std::string& device, Duration life = Duration(600'000),
                    const crypto::Key* with = nullptr, Duration age = Duration(2'000)) const {
    const std::int64_t now = to_unix_ms(system_clock().now()) / 1000;
    const auto rule = [](const char* permission, const char* action, const std::string& topic) {
      return boost::json::object{{"permission", permission}, {"action", action}, {"topic", topic}};
    };
    const std::string own = "devices/" + device + "/";
    const boost::json::object claims{
        {"iss", kIssuer},
        {"sub", device},
        {"aud", "flock-device"},
        {"iat", now - age.count() / 1000},
        {"exp", now + life.count() / 1000},
        {"acl",
         boost::json::array{
             rule("allow", "publish", own + "state"), rule("allow", "publish", own + "telemetry"),
             rule("allow", "publish", own + "logs"), rule("allow", "publish", own + "events"),
             rule("allow", "subscribe", own + "desired"),
             rule("allow", "subscribe", own + "commands"), rule("deny", "all", "#")}}};
    return crypto::sign_jwt(with ? *with : key, claims);
  }

  mqtt::ClientOptions options(const std::string& client_id, const std::string& user,
                              const std::string& password) const {
    mqtt::ClientOptions out;
    out.url = broker->url();
    out.client_id = client_id;
    out.publish_time = Duration(8000);
    out.backoff_first = out.backoff_max = Duration(50);
    out.credentials = [user, password]() -> Task<mqtt::Credentials> {
      co_return mqtt::Credentials{user, Secret(password)};
    };
    return out;
  }

  // What the client is told at its first attempt: "connected" or why not.
  Task<std::string> first_answer(mqtt::ClientOptions with) const {
    const Executor executor = co_await asio::this_coro::executor;
    mqtt::Client client(executor, with);
    std::string answer;
    Event told(executor);
    client.on_connection([&](bool, const std::string& reason) {
      if (answer.empty()) answer = reason;
      told.set();
    });
    TaskScope scope(executor);
    scope.spawn("client", client.run());
    co_await told.wait();
    scope.cancel();
    co_await scope.join();
    co_return answer;
  }

  flock::testing::TempDir dir;
  crypto::Key key = crypto::Key::generate(crypto::Key::Kind::kP256);
  std::unique_ptr<flock::testing::Mosquitto> broker;
};

TEST_F(BrokerPlugin, LetsInOnlyTheHolderOfItsOwnToken) {
  run_task(
      [&]() -> Task<void> {
        const std::string device = new_uuid(), other = new_uuid();
        const crypto::Key stranger = crypto::Key::generate(crypto::Key::Kind::kP256);
        EXPECT_EQ(co_await first_answer(options(device, device, token(device))), "connected");
        EXPECT_EQ(co_await first_answer(options("x", "flock-api", "api-password")), "connected");
        const mqtt::ClientOptions refused[] = {
            options(device, "", ""),
            options("x", "flock-api", "wrong"),
            options("x", "nobody", "x"),
            options(device, device, "nonsense"),
            options(device, device, token(other)),
            options(other, device, token(device)),
            options(device, device, token(device, Duration(-60'000))),
            options(device, device, token(device, Duration(600'000), &stranger)),
        };
        for (const auto& with : refused) {
          const std::string answer = co_await first_answer(with);
          EXPECT_NE(answer.find("not authorized"), std::string::npos) << answer;
        }
      },
      Duration(20'000));
}

TEST_F(BrokerPlugin, KeepsADeviceToItsOwnTopicsAndTargetsToTheirs) {
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        const std::string device = new_uuid(), other = new_uuid();
        mqtt::Client client(executor, options(device, device, token(device))),
            api(executor, options("api", "flock-api", "api-password"));
        TaskScope scope(executor);
        scope.spawn("device", client.run());
        scope.spawn("api", api.run());
        co_await client.wait_connected();
        co_await api.wait_connected();
        for (const char* leaf : {"state", "telemetry", "logs", "events"})
          co_await client.publish(mqtt::make_message("devices/" + device + "/" + leaf, "x"));
        const auto publish = [](mqtt::Client& from, std::string topic) {
          return from.publish(mqtt::make_message(topic, "x"));
        };
        const auto subscribe = [](mqtt::Client& from, std::string filter) {
          return from.subscribe(mqtt::make_subscription(filter), [](mqtt::Delivery) {});
        };
        EXPECT_EQ(co_await code_of_task(publish(client, "devices/" + other + "/state")),
                  Code::kForbidden);
        EXPECT_EQ(co_await code_of_task(publish(client, "devices/" + device + "/desired")),
                  Code::kForbidden);
        EXPECT_EQ(co_await code_of_task(publish(client, "devices/" + device + "/commands")),
                  Code::kForbidden);
        EXPECT_EQ(co_await code_of_task(publish(client, "$CONTROL/flock/v1/revoke")),
                  Code::kForbidden);
        for (const std::string& filter :
             {"devices/" + other + "/desired", std::string("devices/+/desired"), std::string("#"),
              std::string("flock/internal/#")}) {
          EXPECT_EQ(co_await code_of_task(subscribe(client, filter)), Code::kForbidden) << filter;
        }
        for (const char* leaf : {"desired", "commands"})
          co_await subscribe(client, "devices/" + device + "/" + leaf);
        EXPECT_EQ(co_await code_of_task(publish(api, "devices/" + device + "/desired")),
                  Code::kForbidden);
        co_await publish(api, "flock/internal/v1/x");
        scope.cancel();
        co_await scope.join();
      },
      Duration(20'000));
}

TEST_F(BrokerPlugin, KeepsCustomerEventsToThoseWhoMayReadThem) {
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        const std::string id = new_uuid(), event = "flock/events/v1/device/online";
        mqtt::Client device(executor, options(id, id, token(id))),
            gateway(executor, options("gateway", "flock-events-gateway", "gateway-password")),
            reader(executor, options("reader", "flock-events", "events-password"));
        TaskScope scope(executor);
        for (mqtt::Client* client : {&device, &gateway, &reader}) {
          scope.spawn("client", client->run());
          co_await client->wait_connected();
        }
        const auto publish = [](mqtt::Client& from, std::string topic) {
          return code_of_publish(from.publish(mqtt::make_message(std::move(topic), "x")));
        };
        Event heard(executor);
        int messages = 0;
        co_await reader.subscribe(mqtt::make_subscription("flock/events/v1/#"),
                                  [&](mqtt::Delivery delivery) {
                                    EXPECT_EQ(delivery.message.topic, event);
                                    ++messages;
                                    heard.set();
                                    delivery.ack();
                                  });
        EXPECT_EQ(co_await code_of_task(
                      device.subscribe(mqtt::make_subscription(event), [](mqtt::Delivery) {})),
                  Code::kForbidden);
        EXPECT_EQ(co_await publish(device, event), Code::kForbidden);
        EXPECT_EQ(co_await publish(reader, event), Code::kForbidden);
        EXPECT_EQ(co_await publish(gateway, "flock/internal/v1/device/presence"), Code::kForbidden);
        EXPECT_EQ(co_await publish(gateway, "devices/" + id + "/desired"), Code::kForbidden);
        EXPECT_EQ(co_await publish(gateway, event), std::nullopt);
        co_await heard.wait();
        EXPECT_EQ(messages, 1);
        scope.cancel();
        co_await scope.join();
      },
      Duration(20'000));
}

TEST_F(BrokerPlugin, EndsSessionsWhenTheTokenExpiresOrTheDeviceIsRevoked) {
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        const std::string expiring = new_uuid(), revoked = new_uuid();
        mqtt::Client first(executor, options(expiring, expiring, token(expiring, Duration(3000)))),
            second(executor, options(revoked, revoked, token(revoked)));
        mqtt::Client api(executor, options("api", "flock-api", "api-password"));
        Event first_lost(executor), second_lost(executor);
        TaskScope scope(executor);
        scope.spawn("first", first.run());
        scope.spawn("second", second.run());
        scope.spawn("api", api.run());
        co_await first.wait_connected();
        co_await second.wait_connected();
        co_await api.wait_connected();
        first.on_connection([&](bool up, const std::string&) {
          if (!up) first_lost.set();
        });
        second.on_connection([&](bool up, const std::string&) {
          if (!up) second_lost.set();
        });
        EXPECT_TRUE(co_await first_lost.wait_for(Duration(8000)));
        EXPECT_TRUE(second.connected());
        co_await api.publish(mqtt::make_message(
            "$CONTROL/flock/v1/revoke",
            "{\"device\":\"" + revoked +
                "\",\"revoked_at_ms\":" + std::to_string(to_unix_ms(system_clock().now())) + "}"));
        EXPECT_TRUE(co_await second_lost.wait_for(Duration(5000)));
        scope.cancel();
        co_await scope.join();
        const std::string answer = co_await first_answer(options(revoked, revoked, token(revoked)));
        EXPECT_NE(answer.find("not authorized"), std::string::npos) << answer;
      },
      Duration(30'000));
}

// Tokens that live for a week outlive a day's memory of who was revoked.
TEST_F(BrokerPlugin, RemembersARevocationForAsLongAsTokensLive) {
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        constexpr Duration kDay{86'400'000};
        const TimePoint now = system_clock().now();
        const std::string kept = new_uuid(), over = new_uuid();
        mqtt::Client api(executor, options("api", "flock-api", "api-password"));
        TaskScope scope(executor);
        scope.spawn("api", api.run());
        const auto revoke = [&](const std::string& device, TimePoint until) {
          return api.publish(mqtt::make_message(
              "$CONTROL/flock/v1/revoke",
              "{\"device\":\"" + device +
                  "\",\"revoked_at_ms\":" + std::to_string(to_unix_ms(now - 2 * kDay)) +
                  ",\"keep_until_ms\":" + std::to_string(to_unix_ms(until)) + "}"));
        };
        co_await revoke(kept, now + 5 * kDay);
        co_await revoke(over, now - kDay);
        co_await sleep_for(Duration(2500));  // the plugin looks every second
        const auto old = [&](const std::string& device) {
          return options(device, device, token(device, 4 * kDay, nullptr, 3 * kDay));
        };
        const std::string refused = co_await first_answer(old(kept));
        EXPECT_NE(refused.find("not authorized"), std::string::npos) << refused;
        EXPECT_EQ(co_await first_answer(old(over)), "connected");
        const std::string fresh = co_await first_answer(options(kept, kept, token(kept)));
        EXPECT_EQ(fresh, "connected") << "issued after it was revoked";
        scope.cancel();
        co_await scope.join();
      },
      Duration(30'000));
}

}  // namespace
}  // namespace flock

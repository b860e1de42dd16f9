// SPDX-License-Identifier: Apache-2.0
// The agent's link against a real Mosquitto, with a backend that only hands out tokens.
#include "app/agent.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "app/test_backend.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "link/desired_store.h"
#include "mqtt/client.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::agent {
namespace {

namespace ft = flock::testing;

using ft::run_task;
using ft::TempDir;

class AgentLink : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!ft::require({"mosquitto"})) GTEST_SKIP() << "needs mosquitto";
    broker.start();
  }
  // Runs an agent and a client that sees what it says, for as long as `body` takes.
  Task<void> with_agent(Backend& backend, std::function<Task<void>(mqtt::Client&, Agent&)> body) {
    const Executor executor = co_await asio::this_coro::executor;
    mqtt::ClientOptions watching;
    watching.url = broker.url();
    watching.client_id = "watcher";
    mqtt::Client watcher(executor, watching);
    mqtt::Subscription all;
    all.filter = "devices/+/events";
    co_await watcher.subscribe(all, [this](mqtt::Delivery delivery) {
      device::v1::DeviceEvent event;
      if (event.ParseFromString(delivery.message.payload)) events.push_back(event.kind());
      delivery.ack();
    });
    AgentOptions options;
    options.server = backend.url;
    options.data_dir = dir.file("data");
    options.provisioning_key_file = dir.write("key", "flp_x\n");
    options.podman_socket = dir.file("no-podman");
    Agent agent(executor, options);
    TaskScope scope(executor);
    scope.spawn("watcher", watcher.run());
    scope.spawn("agent", agent.run());
    co_await body(watcher, agent);
    agent.stop();
    co_await until("the goodbye", [&] { return saw(device::v1::DeviceEvent::OFFLINE); });
    scope.cancel();
    co_await scope.join();
    co_await backend.server.stop();
  }
  static Task<void> until(std::string what, std::function<bool()> condition) {
    for (int i = 0; i < 400; ++i) {
      if (condition()) co_return;
      co_await sleep_for(Duration(50));
    }
    throw Error(Code::kTimeout, "did not happen in time: " + what);
  }
  bool saw(device::v1::DeviceEvent::Kind kind) const {
    return std::find(events.begin(), events.end(), kind) != events.end();
  }

  ft::Mosquitto broker;
  TempDir dir;
  std::vector<device::v1::DeviceEvent::Kind> events;
};

TEST_F(AgentLink, SaysHelloTakesTheRetainedWishAndSaysGoodbye) {
  run_task(
      [&]() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor);
        backend.brokers = {broker.url()};
        const auto body = [&](mqtt::Client& client, Agent&) -> Task<void> {
          co_await until("hello", [&] { return saw(device::v1::DeviceEvent::ONLINE); });
          device::v1::DesiredState wish;
          wish.set_version(4);
          mqtt::Message message;
          message.topic = "devices/" + backend.device + "/desired";
          message.payload = "no protobuf";
          co_await client.publish(message);
          message.retain = true;
          message.payload = wish.SerializeAsString();
          co_await client.publish(message);
          co_await until("the stored wish", [&] {
            return DesiredStore(dir.file("data/desired")).load().version() == 4;
          });
        };
        co_await with_agent(backend, body);
        EXPECT_EQ(backend.calls, 1);
        EXPECT_FALSE(saw(device::v1::DeviceEvent::LOST));
      },
      Duration(40'000));
}

TEST_F(AgentLink, TriesTheNextAddressOfTheBroker) {
  run_task(
      [&]() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor);
        backend.brokers = {"mqtt://127.0.0.1:" + std::to_string(ft::free_port()), broker.url()};
        const auto body = [&](mqtt::Client&, Agent&) -> Task<void> {
          co_await until("hello", [&] { return saw(device::v1::DeviceEvent::ONLINE); });
        };
        co_await with_agent(backend, body);
      },
      Duration(40'000));
}

TEST_F(AgentLink, FollowsABrokerThatMovesAndRenewsInTime) {
  run_task(
      [&]() -> Task<void> {
        ft::Mosquitto old;
        old.start();
        Backend backend(co_await asio::this_coro::executor);
        backend.brokers = {old.url()};
        backend.life = Duration(4'000);
        const auto body = [&](mqtt::Client&, Agent&) -> Task<void> {
          co_await until("registration", [&] { return backend.calls == 1; });
          backend.brokers = {broker.url()};
          co_await until("hello at the new one",
                         [&] { return saw(device::v1::DeviceEvent::ONLINE); });
          EXPECT_GE(backend.calls, 2);
        };
        co_await with_agent(backend, body);
      },
      Duration(40'000));
}

}  // namespace
}  // namespace flock::agent

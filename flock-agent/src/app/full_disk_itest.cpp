// SPDX-License-Identifier: Apache-2.0
// A device whose disk is full while nobody can be told anything.
#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/json.hpp>

#include "app/device_itest.h"
#include "app/status.h"
#include "app/test_backend.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/files.h"
#include "domain/plan.h"
#include "mqtt/client.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::agent {
namespace {

namespace ft = flock::testing;
namespace bj = boost::json;
using device::v1::DeviceEvent;
using ft::run_task;

class FullDisk : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0 || !ft::require({"podman", "runc", "mosquitto"}))
      GTEST_SKIP() << "needs root, podman and mosquitto";
    disk = std::make_unique<SmallDisk>("256k");
    broker.start();
    podman.start();
    image = podman.build("talk", kTalkingApp);
  }

  AgentOptions options(const Backend& backend) {
    AgentOptions out;
    out.server = backend.url;
    out.data_dir = disk->path();
    out.provisioning_key_file = dir.write("key", "flp_x\n");
    out.podman_socket = podman.socket();
    out.reconcile_interval = Duration(500);
    out.look_interval = out.telemetry_interval = Duration(100);
    out.keep_alive = Duration(2'000);
    return out;
  }
  // One service that runs and says one line.
  std::string wish() const {
    DesiredState state;
    state.set_version(1);
    auto* service = state.add_services();
    service->set_name("web");
    service->set_image(image);
    service->set_network_mode("none");
    service->mutable_restart()->set_policy(device::v1::Restart::ALWAYS);
    service->set_has_command(true);
    for (const char* word : {"1", "1", "1", "one"}) service->add_command(word);
    return state.SerializeAsString();
  }
  void take(const mqtt::Message& message) {
    DeviceEvent event;
    device::v1::TelemetryBatch batch;
    if (message.topic.ends_with("/events") && event.ParseFromString(message.payload) &&
        event.kind() == DeviceEvent::SERVICE_EXITED)
      ++exits;
    if (message.topic.ends_with("/telemetry") && batch.ParseFromString(message.payload))
      dropped = std::max(dropped, batch.dropped_points());
  }
  Task<void> until(std::string what, std::function<Task<bool>()> condition) const {
    for (int i = 0; i < 600; ++i) {
      if (co_await condition()) co_return;
      co_await sleep_for(Duration(100));
    }
    throw Error(Code::kTimeout, "did not happen in time: " + what);
  }
  Task<bj::value> status() const {
    try {
      co_return bj::parse(co_await ask_status(disk->path() + "/status.sock"));
    } catch (const Error&) {
      co_return bj::value(bj::object{{"lost", {{"telemetry_points", 0}}},
                                     {"waiting", {{"messages", 0}, {"disk_error", ""}}}});
    }
  }
  std::string running() const { return podman.run({"ps", "-q", "--no-trunc"}); }

  ft::Mosquitto broker;
  ft::Podman podman;
  ft::TempDir dir;
  std::unique_ptr<SmallDisk> disk;
  std::string image;
  int exits = 0;
  std::int64_t dropped = 0;
};

TEST_F(FullDisk, KeepsContainersRunningDropsTheOldestTelemetryAndSaysSo) {
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        Backend backend(executor);
        backend.brokers = {broker.url()};
        mqtt::ClientOptions hearing;
        hearing.url = broker.url();
        hearing.client_id = "ears";
        hearing.backoff_max = Duration(500);
        mqtt::Client ears(executor, hearing);
        mqtt::Subscription all;
        all.filter = "devices/+/+";
        co_await ears.subscribe(all, [this](mqtt::Delivery delivery) {
          take(delivery.message);
          delivery.ack();
        });
        TaskScope scope(executor);
        scope.spawn("ears", ears.run());
        mqtt::Message message;
        message.topic = "devices/" + backend.device + "/desired";
        message.retain = true;
        message.payload = wish();
        co_await ears.publish(message);

        Flockd flockd(options(backend), dir.file("flockd.log"));
        co_await until("the service", [&]() -> Task<bool> { co_return !running().empty(); });
        broker.stop();
        const auto waiting = [&](std::int64_t messages) {
          return [this, messages]() -> Task<bool> {
            const bj::value now = co_await status();
            co_return now.at("waiting").at("messages").to_number<std::int64_t>() >= messages;
          };
        };
        co_await until("telemetry on disk", waiting(3));
        disk->fill(0);
        co_await until("telemetry that goes", [&]() -> Task<bool> {
          const bj::value now = co_await status();
          co_return now.at("lost").at("telemetry_points").to_number<std::int64_t>() > 0 &&
              is_no_space(now.at("waiting").at("disk_error").as_string());
        });
        const std::string before = running();
        podman.run({"kill", "--all"});
        co_await until("the service again", [&]() -> Task<bool> { co_return running() == before; });
        const bj::value now = co_await status();
        EXPECT_EQ(now.at("lost").at("events").to_number<int>(), 0);
        EXPECT_NE(describe_status(bj::serialize(now)).find("No space left"), std::string::npos);

        broker.start();
        co_await until("what was kept",
                       [&]() -> Task<bool> { co_return exits > 0 && dropped > 0; });
        disk->free();
        podman.run({"kill", "--all"});
        co_await until("a disk that takes what is stored", [&]() -> Task<bool> {
          co_return (co_await status()).at("waiting").at("disk_error").as_string().empty();
        });
        co_await until("the other end", [&]() -> Task<bool> { co_return exits > 1; });
        flockd.end(SIGTERM);
        scope.cancel();
        co_await scope.join();
        co_await backend.server.stop();
      },
      Duration(120'000));
}

}  // namespace
}  // namespace flock::agent

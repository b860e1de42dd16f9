// SPDX-License-Identifier: Apache-2.0
// The device's network goes away and comes back under a running flockd, in a network namespace of
// the test's own.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "app/device_itest.h"
#include "app/test_backend.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/files.h"
#include "flock/device/v1/device.pb.h"
#include "mqtt/client.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::agent {
namespace {

namespace ft = flock::testing;
using device::v1::DeviceEvent;

constexpr Duration kAway{6'000};

std::int64_t unix_now() { return to_unix_ms(system_clock().now()); }

struct Heard {
  std::vector<std::int64_t> looks;  // at_ms
  int online = 0, lost = 0;
  void take(const mqtt::Message& message) {
    device::v1::TelemetryBatch batch;
    DeviceEvent event;
    if (message.topic.ends_with("/telemetry") && batch.ParseFromString(message.payload))
      for (const auto& point : batch.points()) looks.push_back(point.at_ms());
    if (message.topic.ends_with("/events") && event.ParseFromString(message.payload)) {
      online += event.kind() == DeviceEvent::ONLINE ? 1 : 0;
      lost += event.kind() == DeviceEvent::LOST ? 1 : 0;
    }
  }
};

Task<void> until(std::string what, std::function<bool()> condition) {
  for (int i = 0; i < 600; ++i) {
    if (condition()) co_return;
    co_await sleep_for(Duration(100));
  }
  throw Error(Code::kTimeout, "did not happen in time: " + what);
}

Task<void> lose_the_network(ft::Mosquitto& broker) {
  const Executor executor = co_await asio::this_coro::executor;
  const ft::TempDir dir;
  Backend backend(executor);
  backend.brokers = {broker.url()};
  Heard heard;
  mqtt::ClientOptions hearing;
  hearing.url = broker.url();
  hearing.client_id = "ears";
  hearing.keep_alive = Duration(2'000);
  hearing.backoff_max = Duration(500);
  mqtt::Client ears(executor, hearing);
  mqtt::Subscription all;
  all.filter = "devices/+/+";
  co_await ears.subscribe(all, [&](mqtt::Delivery delivery) {
    heard.take(delivery.message);
    delivery.ack();
  });
  TaskScope scope(executor);
  scope.spawn("ears", ears.run());

  AgentOptions options;
  options.server = backend.url;
  options.data_dir = dir.file("data");
  options.provisioning_key_file = dir.write("key", "flp_x\n");
  options.podman_socket = dir.file("no-podman");
  options.look_interval = options.telemetry_interval = Duration(200);  // one a second at least
  options.keep_alive = Duration(2'000);
  Flockd flockd(options, dir.file("flockd.log"));
  co_await until("telemetry", [&] { return heard.online == 1 && heard.looks.size() > 1; });

  set_network(false);
  co_await sleep_for(kAway);
  set_network(true);
  const std::int64_t back = unix_now();
  co_await until("it back", [&] {
    return heard.online == 2 &&
           std::ranges::any_of(heard.looks, [&](std::int64_t at) { return at > back + 1'000; });
  });
  // What waits on disk is sent beside what is new.
  co_await until("what it made meanwhile", [&] {
    std::ranges::sort(heard.looks);
    return std::ranges::adjacent_find(heard.looks, [](std::int64_t one, std::int64_t next) {
             return next - one > kAway.count() / 2;
           }) == heard.looks.end();
  });
  EXPECT_EQ(heard.lost, 0) << "shorter than the will's delay";
  flockd.end(SIGTERM);
  scope.cancel();
  co_await scope.join();
  co_await backend.server.stop();
}

TEST(Network, ThatComesBackFindsFlockdAndAllThatItMadeMeanwhile) {
  if (::geteuid() != 0 || !ft::require({"mosquitto"})) GTEST_SKIP() << "needs root and mosquitto";
  in_own_network([] {
    ft::Mosquitto broker;
    broker.start();
    ft::run_task([&]() -> Task<void> { co_await lose_the_network(broker); }, Duration(120'000));
  });
}

}  // namespace
}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
// mqtt_load PORT COUNT BYTES PER_SECOND: publishes COUNT messages of BYTES at QoS 1; PER_SECOND 0:
// as fast as the broker acknowledges them, else one by one at that pace, so that a receiver cannot
// take them in groups. For bench/mqtt.sh.
#include <cstdlib>

#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "mqtt/client.h"

using namespace flock;

namespace {

Task<void> publish_all(std::string port, int count, std::size_t bytes, int per_second) {
  const Executor executor = co_await asio::this_coro::executor;
  mqtt::ClientOptions options;
  options.url = "mqtt://127.0.0.1:" + port;
  options.client_id = "bench-load";
  options.session_expiry = Duration(0);
  mqtt::Client client(executor, options);
  TaskScope scope(executor), sending(executor);
  scope.spawn("client", client.run());
  co_await client.wait_connected();
  mqtt::Message message;
  message.topic = "bench/0190f3a2-7c11-7abc-8def-0123456789ab/state";
  message.payload = std::string(bytes, 'x');
  const SteadyPoint began = std::chrono::steady_clock::now();
  for (int i = 0; i < count; ++i) {
    if (per_second > 0) {
      const auto due = began + std::chrono::microseconds(1'000'000LL * i / per_second);
      const auto left = due - std::chrono::steady_clock::now();
      if (left > Duration(0)) co_await sleep_for(std::chrono::ceil<Duration>(left));
    }
    while (sending.size() >= 500) co_await yield_now();
    sending.spawn("publish", client.publish(message));
  }
  co_await sending.join();
  co_await client.disconnect(Duration(1000));
  co_await scope.join();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  Loop loop;
  loop.run(publish_all(argv[1], std::atoi(argv[2]), std::strtoul(argv[3], nullptr, 10),
                       std::atoi(argv[4])));
}

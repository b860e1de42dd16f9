// SPDX-License-Identifier: Apache-2.0
// mqtt_consumer PORT COUNT: receives COUNT messages at QoS 1 with Flock's client, acknowledges each, and prints its
// own CPU microseconds per message. "ready" on stderr when it is subscribed. For bench/mqtt.sh.
#include <cstdio>
#include <cstdlib>

#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "mqtt/client.h"
#include "own_cpu.h"

using namespace flock;

namespace {

Task<void> consume(std::string port, int count) {
  const Executor executor = co_await asio::this_coro::executor;
  mqtt::ClientOptions options;
  options.url = "mqtt://127.0.0.1:" + port;
  options.client_id = "bench-flock";
  options.session_expiry = Duration(0);
  mqtt::Client client(executor, options);
  Event done(executor);
  int seen = 0;
  std::size_t bytes = 0;
  double began = 0;
  const auto on_message = [&](mqtt::Delivery delivery) {
    if (seen++ == 0) began = bench::own_cpu();
    bytes += delivery.message.payload.size();
    delivery.ack();
    if (seen == count) done.set();
  };
  TaskScope scope(executor);
  scope.spawn("client", client.run());
  co_await client.wait_connected();
  mqtt::Subscription subscription;
  subscription.filter = "bench/#";
  co_await client.subscribe(subscription, on_message);
  std::fprintf(stderr, "ready\n");
  co_await done.wait();
  std::printf("%.3f %zu\n", (bench::own_cpu() - began) / (count - 1), bytes);
  co_await client.disconnect(Duration(1000));
  co_await scope.join();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  Loop loop;
  loop.run(consume(argv[1], std::atoi(argv[2])));
}

// SPDX-License-Identifier: Apache-2.0
// mqtt_reference PORT COUNT: what mqtt_consumer does, with libmosquitto's own loop and the same receive maximum. libmosquitto
// acknowledges by itself.
#include <mosquitto.h>
#include <mqtt_protocol.h>

#include <cstdio>
#include <cstdlib>

#include "own_cpu.h"

namespace {

constexpr int kReceiveMaximum = 256;  // as mqtt::ClientOptions

struct State {
  int count = 0, seen = 0;
  std::size_t bytes = 0;
  double began = 0;
};

void on_message(mosquitto* client, void* data, const mosquitto_message* message,
                const mosquitto_property*) {
  auto& state = *static_cast<State*>(data);
  if (state.seen++ == 0) state.began = flock::bench::own_cpu();
  state.bytes += static_cast<std::size_t>(message->payloadlen);
  if (state.seen == state.count) {
    std::printf("%.3f %zu\n", (flock::bench::own_cpu() - state.began) / (state.count - 1),
                state.bytes);
    mosquitto_disconnect(client);
  }
}

void on_connect(mosquitto* client, void*, int, int, const mosquitto_property*) {
  mosquitto_subscribe_v5(client, nullptr, "bench/#", 1, 0, nullptr);
}

void on_subscribe(mosquitto*, void*, int, int, const int*, const mosquitto_property*) {
  std::fprintf(stderr, "ready\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  State state;
  state.count = std::atoi(argv[2]);
  mosquitto_lib_init();
  mosquitto* client = mosquitto_new("bench-reference", true, &state);
  mosquitto_int_option(client, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V5);
  mosquitto_int_option(client, MOSQ_OPT_RECEIVE_MAXIMUM, kReceiveMaximum);
  mosquitto_connect_v5_callback_set(client, on_connect);
  mosquitto_subscribe_v5_callback_set(client, on_subscribe);
  mosquitto_message_v5_callback_set(client, on_message);
  mosquitto_property* properties = nullptr;
  mosquitto_property_add_int16(&properties, MQTT_PROP_RECEIVE_MAXIMUM, kReceiveMaximum);
  if (mosquitto_connect_bind_v5(client, "127.0.0.1", std::atoi(argv[1]), 30, nullptr, properties) !=
      MOSQ_ERR_SUCCESS)
    return 1;
  mosquitto_loop_forever(client, -1, 1);
  mosquitto_property_free_all(&properties);
  mosquitto_destroy(client);
  return state.seen >= state.count ? 0 : 1;
}

// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "mqtt/codec.h"

using namespace flock;

namespace {

// What was decoded can be sent on, and says the same at the other end.
void check_round_trip(const mqtt::Publish& packet) {
  if (packet.message.topic.empty()) return;  // an alias: the session fills it in
  std::string wire;
  mqtt::encode(wire, packet);
  std::string_view input = wire;
  const auto again = mqtt::decode(input, SIZE_MAX);
  FLOCK_ASSERT(again && input.empty());
  const auto& copy = std::get<mqtt::Publish>(*again);
  FLOCK_ASSERT(copy.packet_id == packet.packet_id);
  FLOCK_ASSERT(copy.message.topic == packet.message.topic);
  FLOCK_ASSERT(copy.message.payload == packet.message.payload);
  FLOCK_ASSERT(copy.message.expiry == packet.message.expiry);
  FLOCK_ASSERT(copy.message.user_properties == packet.message.user_properties);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  try {
    while (const auto packet = mqtt::decode(input, 1 << 16)) {
      if (const auto* publish = std::get_if<mqtt::Publish>(&*packet)) check_round_trip(*publish);
    }
  } catch (const Error&) {
  }
  return 0;
}

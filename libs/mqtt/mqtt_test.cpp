// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>

#include "mqtt/bus_contract.h"
#include "mqtt/codec.h"
#include "mqtt/memory_bus.h"
#include "testing/run_task.h"

namespace flock::mqtt {
namespace {

using flock::testing::code_of;
using flock::testing::run_task;

std::string bytes(std::initializer_list<int> values) {
  std::string out;
  for (const int value : values) out += static_cast<char>(value);
  return out;
}

TEST(Codec, WritesConnectAsTheSpecificationShows) {
  Connect packet;
  packet.client_id = "id";
  packet.clean_start = true;
  packet.session_expiry_seconds = 10;
  std::string out;
  encode(out, packet);
  EXPECT_EQ(out, bytes({0x10, 23, 0, 4, 'M', 'Q', 'T',  'T',  5, 2, 0,   30, 8,
                        17,   0,  0, 0, 10,  33,  0xff, 0xff, 0, 2, 'i', 'd'}));
}

TEST(Codec, ReadsWhatItWritesForRandomMessages) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto text = [&](std::size_t max) {
    std::string out;
    for (std::size_t n = random() % (max + 1); n > 0; --n)
      out += static_cast<char>('a' + random() % 26);
    return out;
  };
  for (int round = 0; round < 300; ++round) {
    Publish packet;
    packet.message.topic = "t" + text(20);
    packet.message.payload = text(random() % 20000);
    packet.message.qos = static_cast<Qos>(random() % 2);
    packet.message.retain = random() % 2;
    packet.message.content_type = text(5);
    if (random() % 2) packet.message.expiry = Duration(1000 * (random() % 100));
    if (random() % 2) packet.message.user_properties = {{text(3), text(3)}};
    if (packet.message.qos == Qos::kAtLeastOnce)
      packet.packet_id = static_cast<std::uint16_t>(1 + random() % 65535);
    std::string wire;
    encode(wire, packet);
    for (std::size_t cut : {std::size_t{1}, wire.size() / 2, wire.size() - 1}) {
      std::string_view part = std::string_view(wire).substr(0, cut);
      EXPECT_FALSE(decode(part, 1 << 20)) << cut;
    }
    std::string_view all = wire;
    const auto back = decode(all, 1 << 20);
    ASSERT_TRUE(back);
    const auto& got = std::get<Publish>(*back);
    EXPECT_TRUE(all.empty());
    EXPECT_EQ(got.packet_id, packet.packet_id);
    EXPECT_EQ(got.message.topic, packet.message.topic);
    EXPECT_EQ(got.message.payload, packet.message.payload);
    EXPECT_EQ(got.message.retain, packet.message.retain);
    EXPECT_EQ(got.message.expiry, packet.message.expiry);
    EXPECT_EQ(got.message.user_properties, packet.message.user_properties);
  }
}

TEST(Codec, RefusesWhatTheSpecificationForbids) {
  const std::pair<const char*, std::string> cases[] = {
      {"server sends CONNECT", bytes({0x10, 0})},
      {"QoS 2", bytes({0x34, 5, 0, 1, 't', 0, 1})},
      {"QoS 3", bytes({0x36, 5, 0, 1, 't', 0, 1})},
      {"packet identifier 0", bytes({0x32, 6, 0, 1, 't', 0, 0, 0})},
      {"topic with a wildcard", bytes({0x30, 4, 0, 1, '#', 0})},
      {"no topic and no alias", bytes({0x30, 3, 0, 0, 0})},
      {"topic longer than the packet", bytes({0x30, 4, 0, 9, 't', 0})},
      {"property twice", bytes({0x30, 10, 0, 1, 't', 6, 35, 0, 1, 35, 0, 1})},
      {"unknown property", bytes({0x30, 6, 0, 1, 't', 2, 99, 0})},
      {"alias 0", bytes({0x30, 7, 0, 1, 't', 3, 35, 0, 0})},
      {"NUL in a topic", bytes({0x30, 4, 0, 1, 0, 0})},
      {"length of five bytes", bytes({0x30, 0xff, 0xff, 0xff, 0xff, 1})},
      {"flags on PINGRESP", bytes({0xd1, 0})},
      {"SUBACK without reasons", bytes({0x90, 3, 0, 1, 0})},
      {"bytes left over", bytes({0xd0, 1, 0})},
  };
  for (const auto& [name, wire] : cases) {
    std::string_view input = wire;
    EXPECT_EQ(code_of([&] { decode(input, 1 << 20); }), Code::kProtocol) << name;
  }
  const std::string big = bytes({0x30, 0xff, 0xff, 0xff, 0x7f});
  std::string_view input = big;
  EXPECT_EQ(code_of([&] { decode(input, 1 << 20); }), Code::kTooLarge);
}

TEST(Codec, NeverCrashesOnRandomBytes) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 20000; ++round) {
    std::string wire;
    for (unsigned n = random() % 40; n > 0; --n) wire += static_cast<char>(random());
    std::string_view input = wire;
    try {
      while (decode(input, 1 << 16)) {
      }
    } catch (const Error&) {
    }
  }
}

TEST(Topic, MatchesAsInSection47) {
  const std::tuple<const char*, const char*, bool> cases[] = {
      {"a/b", "a/b", true},       {"a/+", "a/b", true},   {"a/+", "a/b/c", false},
      {"a/#", "a/b/c", true},     {"a/#", "a", true},     {"#", "a/b", true},
      {"+/b", "a/b", true},       {"+", "a/b", false},    {"#", "$SYS/x", false},
      {"$SYS/#", "$SYS/x", true}, {"a//b", "a//b", true}, {"a/+/b", "a//b", true},
      {"a", "a/", false},         {"a/", "a", false},
  };
  for (const auto& [filter, topic, wanted] : cases)
    EXPECT_EQ(topic_matches(filter, topic), wanted) << filter << " " << topic;
}

TEST(MemoryBus, KeepsTheContract) {
  run_task([]() -> Task<void> {
    MemoryBus bus;
    co_await bus_contract(bus, bus);
  });
}

}  // namespace
}  // namespace flock::mqtt

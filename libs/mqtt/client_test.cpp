// SPDX-License-Identifier: Apache-2.0
// mqtt::Client against a broker that does exactly what a test says, the wrong things too.
#include "mqtt/client.h"

#include <gtest/gtest.h>

#include "async/event.h"
#include "async/scope.h"
#include "base/error.h"
#include "mqtt/codec.h"
#include "testing/run_task.h"

namespace flock::mqtt {
namespace {

using flock::testing::code_of_task;
using flock::testing::run_task;

constexpr unsigned kConnect = 1, kPublish = 3, kPubAck = 4, kSubscribe = 8, kPing = 12;

std::string bytes(std::initializer_list<int> values) {
  std::string out;
  for (const int value : values) out += static_cast<char>(value);
  return out;
}

std::string connack(bool session_present = false, int reason = 0, std::string properties = "") {
  return bytes({0x20, static_cast<int>(3 + properties.size()), session_present, reason,
                static_cast<int>(properties.size())}) +
         properties;
}

std::string publish(const std::string& topic, std::uint16_t packet_id, std::uint16_t alias = 0) {
  Publish packet;
  packet.message.topic = topic;
  packet.message.payload = "x";
  packet.message.qos = packet_id > 0 ? Qos::kAtLeastOnce : Qos::kAtMostOnce;
  packet.packet_id = packet_id;
  packet.topic_alias = alias;
  std::string out;
  encode(out, packet);
  return out;
}

std::string puback(const std::string& packet_id, int reason = 0) {
  return bytes({0x40, 3}) + packet_id + static_cast<char>(reason);
}

Message message_to(std::string topic, Qos qos = Qos::kAtLeastOnce, std::size_t size = 1) {
  Message message;
  message.topic = std::move(topic);
  message.payload = std::string(size, 'p');
  message.qos = qos;
  return message;
}

struct Packet {
  unsigned kind = 0, flags = 0;
  std::string body;
  // Of a PUBLISH at QoS 1, whose topic is `topic` long.
  std::string packet_id() const { return body.substr(2 + topic().size(), 2); }
  std::string topic() const { return body.substr(2, static_cast<unsigned char>(body[1])); }
};

// One connection of a client, seen from the broker. Every wait ends with the test's own limit.
class Link {
 public:
  explicit Link(net::StreamPtr stream) : stream_(std::move(stream)) {}

  Task<Packet> read() {
    Packet packet;
    const std::string first = co_await take(2);
    packet.kind = static_cast<unsigned char>(first[0]) >> 4;
    packet.flags = static_cast<unsigned char>(first[0]) & 15;
    std::size_t length = static_cast<unsigned char>(first[1]);
    if (length >= 128) {
      const std::string more = co_await take(1);
      length = (length & 127) | static_cast<std::size_t>(static_cast<unsigned char>(more[0])) << 7;
    }
    packet.body = co_await take(length);
    co_return packet;
  }
  Task<Packet> read(unsigned kind) {
    Packet packet = co_await read();
    EXPECT_EQ(packet.kind, kind);
    co_return packet;
  }
  Task<void> send(std::string data) { co_await stream_->write(data); }
  // True when the client closes.
  Task<bool> ended() {
    char block[4096];
    try {
      while (co_await stream_->read_some(block, sizeof block) > 0) {
      }
    } catch (const Error&) {
    }
    co_return true;
  }
  void close() { stream_->close(); }

 private:
  Task<std::string> take(std::size_t count) {
    while (input_.size() < count) {
      char block[4096];
      const std::size_t got = co_await stream_->read_some(block, sizeof block);
      if (got == 0) throw Error(Code::kUnavailable, "the client closed the connection");
      input_.append(block, got);
    }
    std::string part = input_.substr(0, count);
    input_.erase(0, count);
    co_return part;
  }
  net::StreamPtr stream_;
  std::string input_;
};

// A client, its broker, and why the last connection ended.
struct Bench {
  explicit Bench(Executor executor, ClientOptions options = {})
      : listener(net::Listener::tcp(executor, "127.0.0.1", 0)),
        client(executor, adjust(std::move(options), listener->port())),
        scope(executor),
        changed(executor) {
    client.on_connection([this](bool up, const std::string& text) {
      if (up) return;
      reason = text;
      ++losses;
      changed.set();
    });
    scope.spawn("client", client.run());
  }
  static ClientOptions adjust(ClientOptions options, int port) {
    options.url = "mqtt://127.0.0.1:" + std::to_string(port);
    options.client_id = "id";
    options.backoff_first = options.backoff_max = Duration(10);
    return options;
  }
  // The next connection, its CONNECT read and answered.
  Task<Link> link(std::string answer = connack()) {
    Link made(co_await listener->accept());
    co_await made.read(kConnect);
    co_await made.send(answer);
    co_return made;
  }
  Task<std::string> lost() {
    while (losses == 0) {
      changed.reset();
      co_await changed.wait();
    }
    losses = 0;
    co_return reason;
  }
  Task<void> stop() {
    scope.cancel();
    co_await scope.join();
  }
  std::unique_ptr<net::Listener> listener;
  Client client;
  TaskScope scope;
  Event changed;
  std::string reason;
  int losses = 0;
};

using Body = std::function<Task<void>(Bench&)>;
void with_bench(ClientOptions options, Body body) {
  run_task([&]() -> Task<void> {
    Bench bench(co_await asio::this_coro::executor, options);
    co_await body(bench);
    co_await bench.stop();
  });
}

TEST(Session, AcknowledgesWhatComesInOneBlockWithConnack) {
  with_bench({}, [](Bench& bench) -> Task<void> {
    std::vector<Delivery> held;
    co_await bench.client.subscribe({"a/#"}, [&](Delivery d) { held.push_back(std::move(d)); });
    Link link = co_await bench.link(connack(true) + publish("a/b", 7));
    co_await link.read(kSubscribe);
    EXPECT_EQ(held.size(), 1u);
    held.at(0).ack();
    held.at(0).ack();  // does nothing
    EXPECT_EQ((co_await link.read(kPubAck)).body.substr(0, 2), bytes({0, 7}));
  });
}

TEST(Session, KeepsWhatCameBeforeItsSubscriptionAndForgetsItWithTheConnection) {
  with_bench({}, [](Bench& bench) -> Task<void> {
    Link first = co_await bench.link(connack(true) + publish("late", 3));
    co_await bench.client.wait_connected();
    first.close();
    Link second = co_await bench.link(connack(true) + publish("late", 4));
    co_await bench.client.wait_connected();
    int count = 0;
    bench.scope.spawn("subscribe", bench.client.subscribe({"late"}, [&](Delivery d) {
      ++count;
      d.ack();
    }));
    Packet packet = co_await second.read();
    if (packet.kind == kSubscribe) packet = co_await second.read();
    EXPECT_EQ(packet.kind, kPubAck);
    EXPECT_EQ(packet.body.substr(0, 2), bytes({0, 4}));
    EXPECT_EQ(count, 1);
  });
}

TEST(Session, SubscribesAgainWhenNoSubackCame) {
  with_bench({}, [](Bench& bench) -> Task<void> {
    co_await bench.client.subscribe({"a"}, [](Delivery) {});
    Link first = co_await bench.link();
    co_await first.read(kSubscribe);
    first.close();
    Link second = co_await bench.link(connack(true));
    const Packet packet = co_await second.read(kSubscribe);
    co_await second.send(bytes({0x90, 4}) + packet.body.substr(0, 2) + bytes({0, 1}));
    EXPECT_EQ(packet.body.back() & 0x30, 0);
    co_await second.send(publish("x", 0));
    second.close();
    // Confirmed and the session is there: again, but what is retained only if it is new (the broker
    // may have lost it).
    Link third = co_await bench.link(connack(true));
    EXPECT_EQ((co_await third.read(kSubscribe)).body.back() & 0x30, 0x10);
    bench.scope.spawn("publish", bench.client.publish(message_to("b")));
    co_await third.read(kPublish);
  });
}

TEST(Session, GivesOverlappingSubscriptionsTheirOwnAndAcknowledgesOnce) {
  with_bench({}, [](Bench& bench) -> Task<void> {
    std::vector<Delivery> wide, narrow;
    co_await bench.client.subscribe({"a/#"}, [&](Delivery d) { wide.push_back(std::move(d)); });
    co_await bench.client.subscribe({"a/b"}, [&](Delivery d) { narrow.push_back(std::move(d)); });
    Link link = co_await bench.link();
    co_await link.read(kSubscribe);
    co_await link.read(kSubscribe);
    // PUBLISH with the subscription identifiers 1 and 2; then one with 2 alone.
    co_await link.send(bytes({0x32, 12, 0, 3, 'a', '/', 'b', 0, 1, 4, 11, 1, 11, 2}) +
                       bytes({0x32, 10, 0, 3, 'a', '/', 'b', 0, 2, 2, 11, 2}));
    Event tick(co_await asio::this_coro::executor);
    while (narrow.size() < 2) co_await tick.wait_for(Duration(2));
    EXPECT_EQ(wide.size(), 1u);
    narrow[0].ack();
    narrow[1].ack();
    EXPECT_EQ((co_await link.read(kPubAck)).body.substr(0, 2), bytes({0, 2}));
    wide[0].ack();
    EXPECT_EQ((co_await link.read(kPubAck)).body.substr(0, 2), bytes({0, 1}));
  });
}

TEST(Session, SendsAgainInOrderAndMarkedWhatWasNotAcknowledged) {
  with_bench({}, [](Bench& bench) -> Task<void> {
    for (const char* topic : {"t/1", "t/2", "t/3"})
      bench.scope.spawn("publish", bench.client.publish(message_to(topic)));
    Link first = co_await bench.link();
    std::vector<std::string> ids;
    for (int i = 0; i < 3; ++i) ids.push_back((co_await first.read(kPublish)).packet_id());
    co_await first.send(puback(ids[1]));
    co_await first.send(publish("settle", 0));
    first.close();
    // The window of the second connection is one message.
    Link second = co_await bench.link(connack(true, 0, bytes({33, 0, 1})));
    const Packet again = co_await second.read(kPublish);
    EXPECT_EQ(again.topic(), "t/1");
    EXPECT_EQ(again.packet_id(), ids[0]);
    EXPECT_TRUE(again.flags & 8);
    co_await second.send(puback(ids[0]));
    const Packet last = co_await second.read(kPublish);
    EXPECT_EQ(last.topic(), "t/3");
    EXPECT_EQ(last.packet_id(), ids[2]);
    co_await second.send(puback(ids[2]));
  });
}

TEST(Session, PublishesUnderAnAliasOnceTheBrokerKnowsTheTopic) {
  with_bench({}, [](Bench& bench) -> Task<void> {
    const std::string one_alias = connack(false, 0, bytes({34, 0, 1}));
    Link link = co_await bench.link(one_alias);
    co_await bench.client.wait_connected();
    const auto send = [&](const char* topic) {
      return bench.client.publish(message_to(topic, Qos::kAtMostOnce));
    };
    co_await send("devices/1/state");
    co_await send("devices/1/state");
    co_await send("devices/1/other");  // no alias is left
    EXPECT_EQ((co_await link.read(kPublish)).body,
              bytes({0, 15}) + "devices/1/state" + bytes({3, 35, 0, 1}) + "p");
    EXPECT_EQ((co_await link.read(kPublish)).body, bytes({0, 0, 3, 35, 0, 1}) + "p");
    EXPECT_EQ((co_await link.read(kPublish)).topic(), "devices/1/other");
    link.close();
    co_await bench.lost();
    Link second = co_await bench.link(one_alias);
    co_await bench.client.wait_connected();
    co_await send("devices/1/state");
    EXPECT_EQ((co_await second.read(kPublish)).topic(), "devices/1/state");
  });
}

TEST(Session, ReadsAliasesAndRefusesThoseItWasNotTold) {
  with_bench({}, [](Bench& bench) -> Task<void> {
    std::vector<std::string> topics;
    co_await bench.client.subscribe(
        {"#"}, [&](Delivery d) { topics.push_back(std::move(d.message.topic)); });
    const std::string by_alias = bytes({0x30, 6, 0, 0, 3, 35, 0, 1});
    Link first = co_await bench.link();
    co_await first.send(publish("long/topic", 0, 1) + by_alias);
    co_await first.send(bytes({0x30, 6, 0, 0, 3, 35, 0, 2}));
    EXPECT_NE((co_await bench.lost()).find("unknown topic alias"), std::string::npos);
    EXPECT_EQ(topics, (std::vector<std::string>{"long/topic", "long/topic"}));
    Link second = co_await bench.link();
    co_await second.send(by_alias);  // aliases end with their connection
    EXPECT_NE((co_await bench.lost()).find("unknown topic alias"), std::string::npos);
    Link third = co_await bench.link();
    co_await third.send(publish("x", 0, 17));
    EXPECT_NE((co_await bench.lost()).find("over the limit"), std::string::npos);
  });
}

TEST(Session, FindsASilentPeerByItsKeepAlive) {
  ClientOptions options;
  options.keep_alive = Duration(100);
  with_bench(options, [](Bench& bench) -> Task<void> {
    Link link = co_await bench.link();
    co_await link.read(kPing);  // and no answer
    EXPECT_NE((co_await bench.lost()).find("silent"), std::string::npos);
    Link second = co_await bench.link();  // it came back by itself
  });
}

TEST(Session, PingsThoughItPublishesAllTheTime) {
  ClientOptions options;
  options.keep_alive = Duration(100);
  with_bench(options, [](Bench& bench) -> Task<void> {
    Link link = co_await bench.link();
    TaskScope other(co_await asio::this_coro::executor);
    const auto chatter = [&]() -> Task<void> {
      Event tick(co_await asio::this_coro::executor);
      for (;;) {
        co_await bench.client.publish(message_to("t", Qos::kAtMostOnce));
        co_await tick.wait_for(Duration(20));
      }
    };
    other.spawn("chatter", chatter());
    for (int pings = 0; pings < 3;) {
      if ((co_await link.read()).kind != kPing) continue;
      ++pings;
      co_await link.send(bytes({0xd0, 0}));
    }
    EXPECT_EQ(bench.losses, 0);
    other.cancel();
    co_await other.join();
  });
}

TEST(Session, GivesUpOnABrokerThatDoesNotAnswerConnect) {
  ClientOptions options;
  options.connect_time = Duration(100);
  with_bench(options, [](Bench& bench) -> Task<void> {
    const net::StreamPtr silent = co_await bench.listener->accept();
    EXPECT_NE((co_await bench.lost()).find("silent"), std::string::npos);
    co_await bench.link();
  });
}

TEST(Session, BoundsWhatAPeerThatDoesNotReadLeavesBehind) {
  for (const Qos qos : {Qos::kAtMostOnce, Qos::kAtLeastOnce}) {
    ClientOptions options;
    options.queue_bytes = 1 << 20;
    options.publish_time = Duration(50);
    with_bench(options, [qos](Bench& bench) -> Task<void> {
      Link link = co_await bench.link();
      co_await bench.client.wait_connected();
      int too_large = 0;
      const auto try_one = [&]() -> Task<void> {
        try {
          co_await bench.client.publish(message_to("t", qos, 60'000));
        } catch (const Error& error) {
          too_large += error.code() == Code::kTooLarge;
        }
      };
      TaskScope publishers(co_await asio::this_coro::executor);
      // The kernel's buffers take some megabytes; 64 MB they do not.
      for (int i = 0; i < 1000 && too_large == 0; ++i) {
        publishers.spawn("publish", try_one());
        co_await yield_now();
      }
      EXPECT_GT(too_large, 0);
      co_await publishers.join();
    });
  }
}

TEST(Session, RefusesWhatWouldEndTheConnectionAndGoesOn) {
  with_bench({}, [](Bench& bench) -> Task<void> {
    // Waits before the limits of the broker are known.
    const auto big = [&]() -> Task<void> {
      const Code code =
          co_await code_of_task(bench.client.publish(message_to("t", Qos::kAtLeastOnce, 500)));
      EXPECT_EQ(code, Code::kTooLarge);
    };
    bench.scope.spawn("big", big());
    Link link = co_await bench.link(connack(false, 0, bytes({39, 0, 0, 1, 0})));
    co_await bench.client.wait_connected();
    for (const std::string& topic : {std::string(), std::string("a/+"), std::string("#"),
                                     std::string("a\0b", 3), std::string(70'000, 't')}) {
      EXPECT_EQ(co_await code_of_task(bench.client.publish(message_to(topic))),
                Code::kInvalidArgument);
    }
    EXPECT_EQ(
        co_await code_of_task(bench.client.publish(message_to("t", Qos::kAtLeastOnce, 2 << 20))),
        Code::kTooLarge);
    bench.scope.spawn("good", bench.client.publish(message_to("good")));
    EXPECT_EQ((co_await link.read(kPublish)).topic(), "good");
    EXPECT_EQ(bench.losses, 0);
  });
}

TEST(Session, EndsAConnectionWhoseBytesAreWrongAndComesBack) {
  ClientOptions options;
  options.packet_bytes = 1000;
  options.receive_maximum = 2;
  with_bench(options, [](Bench& bench) -> Task<void> {
    std::string too_many;
    for (std::uint16_t id = 1; id <= 9; ++id) too_many += publish("t", id);
    const std::pair<std::string, std::string> cases[] = {
        {bytes({0x30, 0xff, 0xff, 0x03}), "too large"},        {bytes({0x36, 2, 0, 0}), "QoS 2"},
        {bytes({0x30, 5, 0, 9, 't', 0, 0}), "ends too early"}, {connack(), "second CONNACK"},
        {bytes({0xe0, 1, 0x8e}), "session taken over"},        {too_many, "receive maximum"},
    };
    for (const auto& [wire, wanted] : cases) {
      Link link = co_await bench.link();
      co_await link.send(wire);
      const std::string reason = co_await bench.lost();
      EXPECT_NE(reason.find(wanted), std::string::npos) << reason << " / " << wanted;
      EXPECT_TRUE(co_await link.ended());
    }
    Link cut = co_await bench.link();
    co_await cut.send(bytes({0x30, 50, 0, 1}));  // truncated
    cut.close();
    EXPECT_NE((co_await bench.lost()).find("closed the connection"), std::string::npos);
    Link early(co_await bench.listener->accept());
    co_await early.read(kConnect);
    co_await early.send(publish("t", 0));
    EXPECT_NE((co_await bench.lost()).find("before its CONNACK"), std::string::npos);
    co_await bench.link();
  });
}

TEST(Session, TellsWhatTheBrokerRefused) {
  with_bench({}, [](Bench& bench) -> Task<void> {
    Link refused = co_await bench.link(connack(false, 0x87));
    EXPECT_NE((co_await bench.lost()).find("not authorized"), std::string::npos);
    Link weak = co_await bench.link(connack(false, 0, bytes({36, 0})));
    EXPECT_NE((co_await bench.lost()).find("QoS 1"), std::string::npos);
    Link link = co_await bench.link();
    co_await bench.client.wait_connected();
    const auto forbidden = [](Task<void> task) -> Task<void> {
      EXPECT_EQ(co_await code_of_task(std::move(task)), Code::kForbidden);
    };
    TaskScope callers(co_await asio::this_coro::executor);
    callers.spawn("subscribe", forbidden(bench.client.subscribe({"no"}, [](Delivery) {})));
    const Packet subscribe = co_await link.read(kSubscribe);
    co_await link.send(bytes({0x90, 4}) + subscribe.body.substr(0, 2) + bytes({0, 0x87}));
    co_await callers.join();
    callers.spawn("publish", forbidden(bench.client.publish(message_to("no"))));
    co_await link.send(puback((co_await link.read(kPublish)).packet_id(), 0x87));
    co_await callers.join();
  });
}

TEST(Session, DropsWhatExpiredBeforeItCouldBeSentAndTellsTheRestOfTheTime) {
  with_bench({}, [](Bench& bench) -> Task<void> {
    Message stale = message_to("stale"), fresh = message_to("fresh");
    stale.expiry = Duration(1);
    fresh.expiry = Duration(100'000);
    const auto expired = [&]() -> Task<void> {
      EXPECT_EQ(co_await code_of_task(bench.client.publish(stale)), Code::kTimeout);
    };
    bench.scope.spawn("stale", expired());
    bench.scope.spawn("fresh", bench.client.publish(fresh));
    Event never(co_await asio::this_coro::executor);
    co_await never.wait_for(Duration(1100));
    Link link = co_await bench.link();
    const Packet packet = co_await link.read(kPublish);
    EXPECT_EQ(packet.topic(), "fresh");
    const std::string properties = packet.body.substr(9);
    EXPECT_EQ(properties.substr(0, 5), bytes({5, 2, 0, 0, 0}));
    EXPECT_LT(static_cast<unsigned char>(properties[5]), 100);
    EXPECT_GT(static_cast<unsigned char>(properties[5]), 90);
  });
}

TEST(Session, StopsWhileItWaitsForABroker) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    ClientOptions options;
    options.url = "mqtt://127.0.0.1:1";
    options.backoff_first = options.backoff_max = Duration(3'600'000);
    Client client(executor, options);
    Event refused(executor);
    client.on_connection([&](bool, const std::string&) { refused.set(); });
    TaskScope scope(executor);
    scope.spawn("client", client.run());
    co_await refused.wait();
    co_await client.disconnect(Duration(100));
    co_await scope.join();
    EXPECT_EQ(co_await code_of_task(client.publish(message_to("t"))), Code::kUnavailable);
  });
}

}  // namespace
}  // namespace flock::mqtt

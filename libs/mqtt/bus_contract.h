// SPDX-License-Identifier: Apache-2.0
// What every Bus does; run against MemoryBus in mqtt_test and against a real Mosquitto in
// mqtt_itest.
#pragma once

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "async/event.h"
#include "mqtt/bus.h"
#include "testing/run_task.h"

namespace flock::mqtt {

inline Message make_message(std::string topic, std::string payload, bool retain = false) {
  Message message;
  message.topic = std::move(topic);
  message.payload = std::move(payload);
  message.retain = retain;
  return message;
}

inline Subscription make_subscription(std::string filter) {
  Subscription subscription;
  subscription.filter = std::move(filter);
  return subscription;
}

// Collects payloads; `until` resumes when so many distinct ones came.
class Inbox {
 public:
  explicit Inbox(Executor executor) : changed_(executor) {}
  std::function<void(Delivery)> handler() {
    return [this](Delivery delivery) {
      payloads.push_back(delivery.message.payload);
      distinct.insert(delivery.message.payload);
      last = delivery.message;
      delivery.ack();
      changed_.set();
    };
  }
  Task<void> until(std::size_t count) {
    while (distinct.size() < count) {
      changed_.reset();
      co_await changed_.wait();
    }
  }
  std::vector<std::string> payloads;
  std::set<std::string> distinct;
  Message last;

 private:
  Event changed_;
};

// `first` and `second` are two clients of one broker.
inline Task<void> bus_contract(Bus& first, Bus& second) {
  const Executor executor = co_await asio::this_coro::executor;
  Inbox plain(executor), wild(executor), kept(executor);
  co_await first.subscribe(make_subscription("contract/a"), plain.handler());
  co_await second.subscribe(make_subscription("contract/+/x"), wild.handler());

  Message rich = make_message("contract/a", "one");
  rich.content_type = "text/plain";
  rich.user_properties = {{"k", "v"}, {"k", "w"}};
  co_await second.publish(rich);
  co_await plain.until(1);
  EXPECT_EQ(plain.last.content_type, "text/plain");
  EXPECT_EQ(plain.last.user_properties, rich.user_properties);

  co_await first.publish(make_message("contract/b/x", "two"));
  co_await wild.until(1);
  EXPECT_EQ(wild.last.topic, "contract/b/x");

  // Retained: a late subscriber sees the last one; an empty payload takes it away.
  co_await first.publish(make_message("contract/kept", "old", true));
  co_await first.publish(make_message("contract/kept", "new", true));
  co_await second.subscribe(make_subscription("contract/kept"), kept.handler());
  co_await kept.until(1);
  EXPECT_EQ(kept.payloads, std::vector<std::string>{"new"});
  co_await first.publish(make_message("contract/kept", "", true));

  // A shared subscription gives each message to one member.
  Inbox left(executor), right(executor);
  co_await first.subscribe(make_subscription("$share/g/contract/shared"), left.handler());
  co_await second.subscribe(make_subscription("$share/g/contract/shared"), right.handler());
  for (int i = 0; i < 10; ++i)
    co_await first.publish(make_message("contract/shared", std::to_string(i)));
  Event tick(executor);
  while (left.payloads.size() + right.payloads.size() < 10) co_await tick.wait_for(Duration(5));
  EXPECT_EQ(left.payloads.size() + right.payloads.size(), 10u);
  EXPECT_FALSE(left.payloads.empty());
  EXPECT_FALSE(right.payloads.empty());

  Message unheard = make_message("contract/nobody", "x");
  co_await first.publish(unheard);
  unheard.must_be_heard = true;
  Code refused = Code::kInternal;
  try {
    co_await first.publish(unheard);
  } catch (const Error& error) {
    refused = error.code();
  }
  EXPECT_EQ(refused, Code::kUnavailable);

  co_await first.unsubscribe("contract/a");
  co_await second.publish(make_message("contract/a", "after"));
  co_await second.publish(make_message("contract/c/x", "end"));
  co_await wild.until(2);
  EXPECT_EQ(plain.payloads, std::vector<std::string>{"one"});
}

}  // namespace flock::mqtt

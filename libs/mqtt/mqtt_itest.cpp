// SPDX-License-Identifier: Apache-2.0
// mqtt::Client against a real Mosquitto.
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/id.h"
#include "crypto/keys.h"
#include "mqtt/bus_contract.h"
#include "mqtt/client.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::mqtt {
namespace {

using flock::testing::code_of_task;
using flock::testing::Mosquitto;
using flock::testing::run_task;

ClientOptions options_for(const std::string& url, const std::string& id = new_uuid()) {
  ClientOptions options;
  options.url = url;
  options.client_id = id;
  options.backoff_first = Duration(10);
  options.backoff_max = Duration(200);
  return options;
}

class MqttBroker : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!flock::testing::require({"mosquitto"})) GTEST_SKIP() << "mosquitto is not installed";
  }
};

// Forwards TCP to the broker and can cut every connection.
class CuttingProxy {
 public:
  CuttingProxy(Executor executor, int target)
      : target_(target), listener_(net::Listener::tcp(executor, "127.0.0.1", 0)), scope_(executor) {
    scope_.on_failure([](const std::string&, std::exception_ptr) {});
    scope_.spawn("proxy", accept());
  }
  std::string url() const { return "mqtt://127.0.0.1:" + std::to_string(listener_->port()); }
  void cut() {
    for (const auto& stream : streams_) stream->close();
    ++cuts;
  }
  Task<void> stop() {
    listener_->close();
    cut();
    scope_.cancel();
    co_await scope_.join();
  }
  int cuts = 0;

 private:
  using Shared = std::shared_ptr<net::Stream>;
  Task<void> accept() {
    for (;;) {
      Shared near = co_await listener_->accept();
      net::Endpoint endpoint;
      endpoint.host = "127.0.0.1";
      endpoint.port = std::to_string(target_);
      Shared far = co_await net::connect(endpoint);
      streams_.push_back(near);
      streams_.push_back(far);
      scope_.spawn("there", forward(near, far));
      scope_.spawn("back", forward(far, near));
    }
  }
  static Task<void> forward(Shared from, Shared to) {
    char block[4096];
    try {
      while (const std::size_t got = co_await from->read_some(block, sizeof block))
        co_await to->write({block, got});
    } catch (const Error&) {
    }
    from->close();
    to->close();
  }

  int target_;
  std::unique_ptr<net::Listener> listener_;
  std::vector<Shared> streams_;
  TaskScope scope_;
};

// Two clients of one broker keep the contract.
Task<void> check_contract(ClientOptions options) {
  const Executor executor = co_await asio::this_coro::executor;
  options.session_expiry = Duration(0);  // or the next pair shares the shared subscription with it
  ClientOptions other = options;
  other.client_id = new_uuid();
  Client first(executor, options), second(executor, other);
  TaskScope scope(executor);
  scope.spawn("first", first.run());
  scope.spawn("second", second.run());
  co_await first.wait_connected();
  co_await second.wait_connected();
  co_await bus_contract(first, second);
  co_await first.disconnect(Duration(1000));
  co_await second.disconnect(Duration(1000));
  co_await scope.join();
}

TEST_F(MqttBroker, KeepsTheContractOverTcpAndWebSocket) {
  Mosquitto broker({"", "", "", true});
  broker.start();
  for (const std::string& url : {broker.url(), broker.websocket_url()}) {
    SCOPED_TRACE(url);
    run_task([&] { return check_contract(options_for(url)); }, Duration(20'000));
  }
}

TEST_F(MqttBroker, KeepsTheContractOverTlsAndWebSocketOverTls) {
  const auto ca = crypto::make_ca("test", 1);
  const auto issued = crypto::issue_certificate(ca, {"127.0.0.1"}, 1);
  Mosquitto broker({issued.certificate_pem, issued.key_pem, "", true});
  broker.start();
  net::TlsOptions trust;
  trust.ca_pem = ca.certificate_pem;
  for (const std::string& url : {broker.url(), broker.websocket_url()}) {
    SCOPED_TRACE(url);
    ClientOptions options = options_for(url);
    options.tls = net::make_tls_client(trust);
    run_task([&] { return check_contract(options); }, Duration(20'000));
  }
}

TEST_F(MqttBroker, LosesNothingWhenConnectionsAreCutInTheMiddleOfABurst) {
  Mosquitto broker;
  broker.start();
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  run_task(
      [&]() -> Task<void> {
        constexpr int kMessages = 3000;
        const Executor executor = co_await asio::this_coro::executor;
        std::mt19937 random(seed);
        CuttingProxy proxy(executor, broker.port());
        Client sender(executor, options_for(proxy.url())),
            receiver(executor, options_for(proxy.url()));
        TaskScope scope(executor);
        scope.spawn("sender", sender.run());
        scope.spawn("receiver", receiver.run());
        Inbox inbox(executor);
        co_await receiver.wait_connected();
        co_await receiver.subscribe(make_subscription("burst/#"), inbox.handler());
        co_await sender.wait_connected();

        int failed = 0;
        const auto publish = [&](int number) -> Task<void> {
          try {
            co_await sender.publish(make_message("burst/x", std::to_string(number)));
          } catch (const Error&) {
            ++failed;
          }
        };
        TaskScope publishers(executor);
        for (int i = 0; i < kMessages; ++i) {
          publishers.spawn("publish", publish(i));
          if (random() % 300 == 0) proxy.cut();
          if (i % 10 == 0) co_await yield_now();
        }
        proxy.cut();
        co_await publishers.join();
        co_await inbox.until(kMessages);
        EXPECT_EQ(failed, 0);
        EXPECT_GT(proxy.cuts, 1);
        scope.cancel();
        co_await scope.join();
        co_await proxy.stop();
      },
      Duration(60'000));
}

// A client in a scope of its own, so that a test can end it without a goodbye.
struct Session {
  Session(Executor executor, ClientOptions options)
      : client(executor, std::move(options)), scope(executor) {
    scope.spawn("client", client.run());
  }
  Task<void> drop() {
    scope.cancel();
    co_await scope.join();
  }
  Client client;
  TaskScope scope;
};

TEST_F(MqttBroker, SendsTheWillAfterItsDelayUnlessTheClientIsBack) {
  Mosquitto broker;
  broker.start();
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        Session watcher(executor, options_for(broker.url()));
        Inbox inbox(executor);
        co_await watcher.client.wait_connected();
        co_await watcher.client.subscribe(make_subscription("will/+"), inbox.handler());
        const auto doomed = [&](const std::string& id) {
          ClientOptions options = options_for(broker.url(), id);
          options.will = make_message("will/" + id, id);
          options.will_delay = Duration(1000);
          return std::make_unique<Session>(executor, options);
        };
        auto back = doomed("back"), gone = doomed("gone");
        co_await back->client.wait_connected();
        co_await gone->client.wait_connected();
        const auto dropped = std::chrono::steady_clock::now();
        co_await back->drop();
        co_await gone->drop();
        auto again = doomed("back");
        co_await again->client.wait_connected();
        co_await inbox.until(1);
        EXPECT_GE(std::chrono::steady_clock::now() - dropped, Duration(900));
        EXPECT_EQ(inbox.payloads, std::vector<std::string>{"gone"});
        co_await again->drop();
        co_await watcher.drop();
      },
      Duration(20'000));
}

TEST_F(MqttBroker, KeepsSessionsAndMessagesForTheirTimeOnly) {
  Mosquitto broker;
  broker.start();
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        Session sender(executor, options_for(broker.url()));
        co_await sender.client.wait_connected();
        ClientOptions brief = options_for(broker.url(), "brief");
        brief.session_expiry = Duration(1000);
        const ClientOptions stable = options_for(broker.url(), "stable");
        Inbox inbox(executor), nothing(executor);
        for (const ClientOptions& options : {brief, stable}) {
          Session session(executor, options);
          co_await session.client.wait_connected();
          co_await session.client.subscribe(make_subscription("kept"), inbox.handler());
          co_await session.drop();
        }
        Message passing = make_message("kept", "passing"),
                lasting = make_message("kept", "lasting");
        passing.expiry = Duration(1000);
        lasting.expiry = Duration(100'000);
        lasting.user_properties = {{"boot_id", "7"}};
        co_await sender.client.publish(passing);
        co_await sender.client.publish(lasting);
        Event never(executor);
        co_await never.wait_for(Duration(3000));  // Mosquitto counts whole seconds

        Session late(executor, stable);
        co_await late.client.wait_connected();
        co_await late.client.subscribe(make_subscription("kept"), inbox.handler());
        co_await inbox.until(1);
        EXPECT_EQ(inbox.payloads, std::vector<std::string>{"lasting"});
        EXPECT_EQ(inbox.last.user_properties, lasting.user_properties);
        EXPECT_LT(inbox.last.expiry.value_or(Duration(0)), Duration(99'000));
        EXPECT_GT(inbox.last.expiry.value_or(Duration(0)), Duration(80'000));

        Session expired(executor, brief);
        co_await expired.client.wait_connected();
        co_await expired.client.subscribe(make_subscription("kept"), nothing.handler());
        co_await sender.client.publish(make_message("kept", "end"));
        co_await nothing.until(1);
        EXPECT_EQ(nothing.payloads, std::vector<std::string>{"end"});
        co_await expired.drop();
        co_await late.drop();
        co_await sender.drop();
      },
      Duration(20'000));
}

TEST_F(MqttBroker, DeliversAgainWhatWasNotAcknowledged) {
  Mosquitto broker;
  broker.start();
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        Client sender(executor, options_for(broker.url()));
        auto receiver = std::make_unique<Client>(executor, options_for(broker.url(), "stable"));
        TaskScope senders(executor);
        senders.spawn("sender", sender.run());
        Event delivered(executor);
        {
          TaskScope scope(executor);
          scope.spawn("receiver", receiver->run());
          co_await receiver->wait_connected();
          co_await receiver->subscribe(make_subscription("held"),
                                       [&](Delivery) { delivered.set(); });
          co_await sender.wait_connected();
          co_await sender.publish(make_message("held", "x"));
          co_await delivered.wait();
          scope.cancel();  // as if it were killed before its effect was durable
          co_await scope.join();
        }
        Inbox inbox(executor);
        Client again(executor, options_for(broker.url(), "stable"));
        TaskScope scope(executor);
        scope.spawn("again", again.run());
        co_await again.wait_connected();
        co_await again.subscribe(make_subscription("held"), inbox.handler());
        co_await inbox.until(1);
        EXPECT_EQ(inbox.payloads, std::vector<std::string>{"x"});
        scope.cancel();
        senders.cancel();
        co_await scope.join();
        co_await senders.join();
      },
      Duration(20'000));
}

TEST_F(MqttBroker, HoldsBackWhatTheReceiverDoesNotAcknowledge) {
  Mosquitto broker;
  broker.start();
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        ClientOptions options = options_for(broker.url());
        options.receive_maximum = 3;
        Client receiver(executor, options), sender(executor, options_for(broker.url()));
        TaskScope scope(executor);
        scope.spawn("receiver", receiver.run());
        scope.spawn("sender", sender.run());
        co_await receiver.wait_connected();
        co_await sender.wait_connected();
        std::vector<Delivery> held;
        co_await receiver.subscribe(make_subscription("slow"), [&](Delivery delivery) {
          held.push_back(std::move(delivery));
        });
        for (int i = 0; i < 10; ++i)
          co_await sender.publish(make_message("slow", std::to_string(i)));
        Event tick(executor);
        while (held.size() < 3) co_await tick.wait_for(Duration(5));
        // A round trip on the same connection: had the broker more to send, it would have come by
        // now.
        co_await receiver.publish(make_message("other", "x"));
        EXPECT_EQ(held.size(), 3u);
        for (std::size_t next = 0; next < 10; ++next) {
          while (held.size() <= next) co_await tick.wait_for(Duration(5));
          held[next].ack();
        }
        EXPECT_EQ(held[9].message.payload, "9");
        scope.cancel();
        co_await scope.join();
      },
      Duration(20'000));
}

// False when nothing came for a while.
Task<bool> receives_more(const std::set<std::string>& seen, Event& tick) {
  const std::size_t before = seen.size();
  co_await tick.wait_for(Duration(500));
  co_return seen.size() > before;
}

// A receiver that comes back to more than there are packet ids and is slow: each acknowledgement
// lets Mosquitto send a whole window more.
TEST_F(MqttBroker, TakesAQueueThatIsLongerThanThereArePacketIds) {
  constexpr std::size_t kMessages = 90'000, kInFlight = 1000;
  Mosquitto broker;
  broker.start();
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        ClientOptions options = options_for(broker.url(), "behind");
        options.receive_maximum = 1024;
        options.unacknowledged_most = kAnyNumber;
        Inbox nothing(executor);
        {
          Session before(executor, options);
          co_await before.client.wait_connected();
          co_await before.client.subscribe(make_subscription("much"), nothing.handler());
          co_await before.drop();
        }
        Session sender(executor, options_for(broker.url()));
        co_await sender.client.wait_connected();
        TaskScope sending(executor);
        for (std::size_t i = 0; i < kMessages; ++i) {
          while (sending.size() >= kInFlight) co_await yield_now();
          sending.spawn("publish", sender.client.publish(make_message("much", std::to_string(i))));
        }
        co_await sending.join();

        Session receiver(executor, options);
        int connections = 0;
        receiver.client.on_connection(
            [&](bool up, const std::string&) { connections += up ? 1 : 0; });
        std::vector<Delivery> held;
        std::set<std::string> seen;
        bool holds = true;
        co_await receiver.client.subscribe(make_subscription("much"), [&](Delivery delivery) {
          seen.insert(delivery.message.payload);
          if (holds)
            held.push_back(std::move(delivery));
          else
            delivery.ack();
        });
        Event tick(executor);
        for (std::size_t i = 0; i < 100; ++i) {
          while (held.size() <= i) co_await tick.wait_for(Duration(5));
          held[i].ack();
          co_await tick.wait_for(Duration(5));
        }
        while (seen.size() < kMessages && co_await receives_more(seen, tick)) {
        }
        holds = false;
        for (Delivery& delivery : held) delivery.ack();
        while (seen.size() < kMessages) co_await tick.wait_for(Duration(20));
        EXPECT_EQ(connections, 1);
        co_await receiver.drop();
        co_await sender.drop();
      },
      Duration(60'000));
}

TEST_F(MqttBroker, SendsTheWillOnlyWhenItGoesWithoutGoodbye) {
  Mosquitto broker;
  broker.start();
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        Client watcher(executor, options_for(broker.url()));
        TaskScope scope(executor), doomed_scope(executor);
        scope.spawn("watcher", watcher.run());
        co_await watcher.wait_connected();
        Inbox inbox(executor);
        co_await watcher.subscribe(make_subscription("will/+"), inbox.handler());
        ClientOptions options = options_for(broker.url());
        options.will = make_message("will/polite", "polite");
        Client polite(executor, options);
        doomed_scope.spawn("polite", polite.run());
        co_await polite.wait_connected();
        co_await polite.disconnect(Duration(2000));
        options = options_for(broker.url());
        options.will = make_message("will/cut", "cut");
        Client cut(executor, options);
        doomed_scope.spawn("cut", cut.run());
        co_await cut.wait_connected();
        doomed_scope.cancel();
        co_await doomed_scope.join();
        co_await inbox.until(1);
        EXPECT_EQ(inbox.payloads, std::vector<std::string>{"cut"});
        scope.cancel();
        co_await scope.join();
      },
      Duration(20'000));
}

// Mosquitto 2.0 restores sessions from its file, but not their shared subscriptions.
TEST_F(MqttBroker, HearsAgainAfterABrokerRestartWhatNobodyHeardMeanwhile) {
  Mosquitto broker;
  broker.start();
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        ClientOptions options = options_for(broker.url());
        Client receiver(executor, options);
        options = options_for(broker.url());
        options.unheard_retry = Duration(50);
        Client sender(executor, options);
        TaskScope scope(executor);
        scope.spawn("receiver", receiver.run());
        scope.spawn("sender", sender.run());
        Inbox shared(executor), plain(executor), kept(executor);
        co_await receiver.wait_connected();
        co_await receiver.subscribe(make_subscription("$share/g/restart/+"), shared.handler());
        co_await receiver.subscribe(make_subscription("plain/+"), plain.handler());
        co_await receiver.subscribe(make_subscription("kept/+"), kept.handler());
        co_await sender.wait_connected();
        co_await sender.publish(make_message("restart/1", "before"));
        co_await sender.publish(make_message("kept/1", "kept", true));
        co_await shared.until(1);
        co_await kept.until(1);
        // On the same connection after the acknowledgements: they have arrived when this one did.
        co_await receiver.publish(make_message("elsewhere", "x"));
        broker.stop();  // writes its file
        broker.start();
        co_await sender.publish(make_message("restart/1", "after"));
        co_await sender.publish(make_message("plain/1", "after"));
        co_await shared.until(2);
        co_await plain.until(1);
        EXPECT_EQ(shared.payloads, (std::vector<std::string>{"before", "after"}));
        EXPECT_EQ(kept.payloads, std::vector<std::string>{"kept"});  // not sent again

        options.publish_time = Duration(300);
        Client unheard(executor, options);
        scope.spawn("unheard", unheard.run());
        co_await unheard.wait_connected();
        EXPECT_EQ(co_await code_of_task(unheard.publish(make_message("nobody/1", "x"))),
                  Code::kUnavailable);
        scope.cancel();
        co_await scope.join();
      },
      Duration(30'000));
}

TEST_F(MqttBroker, TellsARefusalFromAnAbsence) {
  Mosquitto broker({"", "", "allow_anonymous false\n"});
  broker.start();
  run_task([&]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    Client client(executor, options_for(broker.url()));
    std::string reason;
    Event told(executor);
    client.on_connection([&](bool, const std::string& text) {
      reason = text;
      told.set();
    });
    TaskScope scope(executor);
    scope.spawn("client", client.run());
    co_await told.wait();
    EXPECT_NE(reason.find("not authorized"), std::string::npos) << reason;
    scope.cancel();
    co_await scope.join();
  });
}

}  // namespace
}  // namespace flock::mqtt

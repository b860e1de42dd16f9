// SPDX-License-Identifier: Apache-2.0
// The agent's link against a real Mosquitto, with a backend that only hands out tokens.
#include "app/agent.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <boost/json.hpp>
#include <filesystem>

#include "app/command_log.h"
#include "app/status.h"
#include "app/test_backend.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/files.h"
#include "link/desired_store.h"
#include "mqtt/client.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::agent {
namespace {

namespace ft = flock::testing;
namespace bj = boost::json;
using ft::run_task;
using ft::TempDir;

class AgentLink : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!ft::require({"mosquitto"})) GTEST_SKIP() << "needs mosquitto";
    broker.start();
  }
  // Runs an agent and a client that sees what it says, for as long as `body` takes.
  Task<void> with_agent(Backend& backend, std::function<Task<void>(mqtt::Client&, Agent&)> body) {
    const Executor executor = co_await asio::this_coro::executor;
    mqtt::ClientOptions watching;
    watching.url = broker.url();
    watching.client_id = "watcher";
    mqtt::Client watcher(executor, watching);
    mqtt::Subscription all;
    all.filter = "devices/+/+";
    co_await watcher.subscribe(all, [this](mqtt::Delivery delivery) {
      take(delivery.message);
      delivery.ack();
    });
    options.server = backend.url;
    options.data_dir = dir.file("data");
    options.provisioning_key_file = dir.write("key", "flp_x\n");
    if (options.podman_socket == AgentOptions().podman_socket)
      options.podman_socket = dir.file("no-podman");
    Agent agent(executor, options);
    TaskScope scope(executor);
    scope.spawn("watcher", watcher.run());
    scope.spawn("agent", agent.run());
    co_await body(watcher, agent);
    agent.stop();
    co_await until("the goodbye", [&] { return saw(device::v1::DeviceEvent::OFFLINE); });
    scope.cancel();
    co_await scope.join();
    co_await backend.server.stop();
  }
  void take(const mqtt::Message& message) {
    const auto is = [&](const char* leaf) { return message.topic.ends_with(leaf); };
    device::v1::DeviceEvent event;
    device::v1::TelemetryBatch batch;
    device::v1::ReportedState state;
    if (is("/events") && event.ParseFromString(message.payload)) {
      events.push_back(event.kind());
      if (event.kind() == device::v1::DeviceEvent::COMMAND) results.push_back(event.command());
    }
    if (is("/telemetry") && batch.ParseFromString(message.payload)) batches.push_back(batch);
    if (is("/state") && state.ParseFromString(message.payload)) states.push_back(state);
  }
  static Task<void> until(std::string what, std::function<bool()> condition) {
    for (int i = 0; i < 400; ++i) {
      if (condition()) co_return;
      co_await sleep_for(Duration(50));
    }
    throw Error(Code::kTimeout, "did not happen in time: " + what);
  }
  bool saw(device::v1::DeviceEvent::Kind kind) const {
    return std::find(events.begin(), events.end(), kind) != events.end();
  }

  ft::Mosquitto broker;
  TempDir dir;
  AgentOptions options;
  std::vector<device::v1::DeviceEvent::Kind> events;
  std::vector<device::v1::CommandResult> results;
  std::vector<device::v1::TelemetryBatch> batches;
  std::vector<device::v1::ReportedState> states;
};

TEST_F(AgentLink, SaysHelloTakesTheRetainedWishAndSaysGoodbye) {
  run_task(
      [&]() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor);
        backend.brokers = {broker.url()};
        const auto body = [&](mqtt::Client& client, Agent&) -> Task<void> {
          co_await until("hello", [&] { return saw(device::v1::DeviceEvent::ONLINE); });
          device::v1::DesiredState wish;
          wish.set_version(4);
          mqtt::Message message;
          message.topic = "devices/" + backend.device + "/desired";
          message.payload = "no protobuf";
          co_await client.publish(message);
          message.retain = true;
          message.payload = wish.SerializeAsString();
          co_await client.publish(message);
          co_await until("the stored wish", [&] {
            return DesiredStore(dir.file("data/desired")).load().version() == 4;
          });
        };
        co_await with_agent(backend, body);
        EXPECT_EQ(backend.calls, 1);
        EXPECT_FALSE(saw(device::v1::DeviceEvent::LOST));
      },
      Duration(40'000));
}

TEST_F(AgentLink, TriesTheNextAddressOfTheBroker) {
  run_task(
      [&]() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor);
        backend.brokers = {"mqtt://127.0.0.1:" + std::to_string(ft::free_port()), broker.url()};
        const auto body = [&](mqtt::Client&, Agent&) -> Task<void> {
          co_await until("hello", [&] { return saw(device::v1::DeviceEvent::ONLINE); });
        };
        co_await with_agent(backend, body);
      },
      Duration(40'000));
}

TEST_F(AgentLink, FollowsABrokerThatMovesAndRenewsInTime) {
  run_task(
      [&]() -> Task<void> {
        ft::Mosquitto old;
        old.start();
        Backend backend(co_await asio::this_coro::executor);
        backend.brokers = {old.url()};
        backend.life = Duration(4'000);
        const auto body = [&](mqtt::Client&, Agent&) -> Task<void> {
          co_await until("registration", [&] { return backend.calls == 1; });
          backend.brokers = {broker.url()};
          co_await until("hello at the new one",
                         [&] { return saw(device::v1::DeviceEvent::ONLINE); });
          EXPECT_GE(backend.calls, 2);
        };
        co_await with_agent(backend, body);
      },
      Duration(40'000));
}

using device::v1::CommandResult;

class AgentCommands : public AgentLink {
 protected:
  static device::v1::Command command(const std::string& id) {
    device::v1::Command out;
    out.set_id(id);
    return out;
  }
  Task<void> give(mqtt::Client& client, const Backend& backend,
                  const device::v1::Command& wanted) const {
    mqtt::Message message;
    message.topic = "devices/" + backend.device + "/commands";
    message.payload = wanted.SerializeAsString();
    co_await client.publish(message);
  }
  // Gives a command and waits for its end.
  Task<CommandResult> done(mqtt::Client& client, const Backend& backend,
                           device::v1::Command wanted) {
    results.clear();
    co_await give(client, backend, wanted);
    const auto ended = [&] {
      return !results.empty() && results.back().state() != CommandResult::STARTED;
    };
    co_await until("the end of " + wanted.id(), ended);
    EXPECT_EQ(results.back().command_id(), wanted.id());
    co_return results.back();
  }
  Task<void> online() {
    co_await until("hello", [&] { return saw(device::v1::DeviceEvent::ONLINE); });
  }
  // A machine of files: its boot id, and a lamp.
  void machine(const std::string& boot) const {
    namespace fs = std::filesystem;
    fs::create_directories(dir.file("root/proc/sys/kernel/random"));
    fs::create_directories(dir.file("root/sys/class/leds/ACT"));
    dir.write("root/proc/sys/kernel/random/boot_id", boot + "\n");
    dir.write("root/proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 400 kB\n");
    dir.write("root/sys/class/leds/ACT/trigger", "none [mmc0] heartbeat\n");
  }
  std::string lamp() const {
    return read_file(dir.file("root/sys/class/leds/ACT/trigger")).value_or("").substr(0, 4);
  }
};

TEST_F(AgentCommands, AreDoneOnceAndSayWhatBecameOfThem) {
  machine("boot-1");
  options.root = dir.file("root");
  options.reboot = false;
  run_task(
      [&]() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor);
        backend.brokers = {broker.url()};
        const auto body = [&](mqtt::Client& client, Agent&) -> Task<void> {
          co_await online();
          device::v1::Command blink = command("blink");
          blink.mutable_identify()->set_seconds(1);
          results.clear();
          co_await give(client, backend, blink);
          co_await until("its beginning", [&] { return !results.empty(); });
          EXPECT_EQ(results.front().state(), CommandResult::STARTED);
          co_await until("the lamp", [&] { return lamp() == "hear"; });
          co_await until("its end", [&] { return results.size() > 1; });
          EXPECT_EQ(results.back().state(), CommandResult::DONE);
          EXPECT_EQ(lamp(), "mmc0");
          EXPECT_EQ((co_await done(client, backend, blink)).state(), CommandResult::DONE);
          EXPECT_EQ(results.size(), 1u) << "the old answer, and nothing is begun";

          device::v1::Command late = command("late");
          late.mutable_identify();
          late.set_expires_at_ms(to_unix_ms(system_clock().now()) - 1000);
          EXPECT_EQ((co_await done(client, backend, late)).state(), CommandResult::EXPIRED);
          const CommandResult unknown = co_await done(client, backend, command("unknown"));
          EXPECT_EQ(unknown.state(), CommandResult::FAILED);
          EXPECT_NE(unknown.message().find("does not know"), std::string::npos);
          device::v1::Command reboot = command("reboot");
          reboot.mutable_reboot();
          const CommandResult off = co_await done(client, backend, reboot);
          EXPECT_EQ(off.state(), CommandResult::FAILED);
          EXPECT_NE(off.message().find("switched off on the device"), std::string::npos);
          EXPECT_FALSE(saw(device::v1::DeviceEvent::SHUTDOWN));

          mqtt::Message rubbish;
          rubbish.topic = "devices/" + backend.device + "/commands";
          for (const std::string& payload : {std::string("\xff\xff"), std::string(),
                                             command(std::string(5000, 'x')).SerializeAsString()}) {
            rubbish.payload = payload;
            co_await client.publish(rubbish);
          }
          device::v1::Command last = command("after the rubbish");
          last.mutable_identify()->set_seconds(1);
          EXPECT_EQ((co_await done(client, backend, last)).state(), CommandResult::DONE);
        };
        co_await with_agent(backend, body);
      },
      Duration(60'000));
}

// The machine "starts again" by getting another boot id; the command is delivered again, as after a
// lost acknowledgement.
TEST_F(AgentCommands, ARebootIsDoneOnceAndToldAfterIt) {
  machine("boot-1");
  options.root = dir.file("root");
  options.reboot_command = {"sh", "-c", "echo x >>" + dir.file("rebooted")};
  options.podman_socket = dir.file("podman.sock");
  const auto empty = [](net::Request) -> Task<net::Reply> {
    co_return net::Reply{net::Response{200, {}, "[]"}, {}};
  };
  device::v1::Command reboot = command("reboot-1");
  reboot.mutable_reboot();
  std::string device;
  const auto round = [&](std::function<Task<void>(mqtt::Client&, Backend&)> body) {
    run_task(
        [&]() -> Task<void> {
          const Executor executor = co_await asio::this_coro::executor;
          net::HttpServer podman(executor, empty, [](const net::Request&, std::exception_ptr) {
            return net::Response{500, {}, ""};
          });
          podman.listen(net::Listener::unix_socket(executor, options.podman_socket));
          Backend backend(executor);
          if (!device.empty()) backend.device = device;
          device = backend.device;
          backend.brokers = {broker.url()};
          events.clear();
          const auto inner = [&](mqtt::Client& client, Agent&) -> Task<void> {
            co_await online();
            co_await body(client, backend);
          };
          co_await with_agent(backend, inner);
          co_await podman.stop();
        },
        Duration(60'000));
  };
  round([&](mqtt::Client& client, Backend& backend) -> Task<void> {
    co_await give(client, backend, reboot);
    co_await until("the reboot", [&] { return std::filesystem::exists(dir.file("rebooted")); });
    EXPECT_TRUE(saw(device::v1::DeviceEvent::SHUTDOWN)) << "said before it is done";
  });
  EXPECT_EQ(results.size(), 1u);
  machine("boot-2");
  round([&](mqtt::Client& client, Backend& backend) -> Task<void> {
    co_await until("the result", [&] { return results.size() == 2; });
    EXPECT_EQ(results.back().state(), CommandResult::DONE);
    EXPECT_EQ((co_await done(client, backend, reboot)).state(), CommandResult::DONE);
  });
  EXPECT_EQ(read_file(dir.file("rebooted")).value_or(""), "x\n");

  // A flockd that was interrupted before the machine went down says so, and does not try again.
  CommandLog journal(dir.file("data/commands.json"));
  journal.load();
  CommandEntry entry;
  entry.id = "reboot-2";
  entry.command = command("reboot-2");
  entry.command.mutable_reboot();
  entry.state = CommandResult::STARTED;
  entry.boot_id = "boot-2";
  journal.add(entry);
  journal.save();
  round([&](mqtt::Client&, Backend&) -> Task<void> {
    co_await until("the result", [&] { return results.back().command_id() == "reboot-2"; });
    EXPECT_EQ(results.back().state(), CommandResult::FAILED);
  });
  EXPECT_EQ(read_file(dir.file("rebooted")).value_or(""), "x\n");
}

TEST_F(AgentCommands, ADamagedJournalIsMovedAside) {
  for (const char* text :
       {"", "{}", "[1]", R"([{"id":"x"}])", "\xff",
        R"([{"id":"x","command":"!","state":1,"told":1,"message":"","boot_id":""}])",
        R"([{"id":"x","command":"","state":77,"told":1,"message":"","boot_id":""}])"}) {
    CommandLog journal(dir.write("commands.json", text));
    journal.load();
    EXPECT_TRUE(journal.entries().empty()) << text;
    EXPECT_TRUE(std::filesystem::exists(dir.file("commands.json.corrupt"))) << text;
    std::filesystem::remove(dir.file("commands.json.corrupt"));
  }
}

TEST_F(AgentCommands, TheJournalForgetsOnlyWhatIsOver) {
  CommandLog journal(dir.file("commands.json"));
  CommandEntry begun;
  begun.id = "begun";
  begun.state = CommandResult::STARTED;
  for (int i = 0; i < 100; ++i) {
    CommandEntry entry;
    entry.id = std::to_string(i);
    entry.state = entry.told = CommandResult::DONE;
    journal.add(entry);
    if (i == 90) journal.add(begun);
  }
  EXPECT_EQ(journal.entries().size(), 64u);
  EXPECT_EQ(journal.find("0"), nullptr);
  journal.save();
  CommandLog again(dir.file("commands.json"));
  again.load();
  EXPECT_EQ(again.entries().size(), 64u);
  ASSERT_NE(again.find("begun"), nullptr);
  EXPECT_FALSE(again.find("begun")->ended());
}

TEST_F(AgentCommands, TelemetryGoesOutAtOnceAndTheStatusCanBeAsked) {
  machine("boot-1");
  options.root = dir.file("root");
  options.profile = "low";
  run_task(
      [&]() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor);
        backend.brokers = {broker.url()};
        const auto body = [&](mqtt::Client&, Agent&) -> Task<void> {
          co_await online();
          co_await until("the figures", [&] { return !batches.empty() && !states.empty(); });
          EXPECT_EQ(batches.front().boot_id(), "boot-1");
          EXPECT_EQ(batches.front().points(0).host().memory_used_bytes(), 600 * 1024);
          EXPECT_GT(batches.front().points(0).host().disk_total_bytes(), 0);
          EXPECT_EQ(states.back().keep_alive_ms(), 12 * 3'600'000);
          EXPECT_NE(backend.asked.find(R"("lifetime":"7d")"), std::string::npos) << backend.asked;

          const std::string socket = dir.file("data/status.sock");
          struct stat info{};
          EXPECT_EQ(::stat(socket.c_str(), &info), 0);
          EXPECT_EQ(info.st_mode & 0777, 0600u);
          const std::string document = co_await ask_status(socket);
          const bj::value status = bj::parse(document);
          EXPECT_EQ(status.at("device_id").as_string(), backend.device);
          EXPECT_TRUE(status.at("connection").at("connected").as_bool());
          EXPECT_EQ(status.at("connection").at("broker").as_string(), broker.url());
          EXPECT_EQ(status.at("profile").as_string(), "low");
          const std::string text = describe_status(document);
          EXPECT_NE(text.find("connected since 2"), std::string::npos) << text;
          EXPECT_NE(text.find(backend.device), std::string::npos) << text;
        };
        co_await with_agent(backend, body);
        EXPECT_EQ(co_await ft::code_of_task(
                      [&]() -> Task<void> { co_await ask_status(dir.file("data/status.sock")); }()),
                  Code::kUnavailable);
      },
      Duration(40'000));
}

}  // namespace
}  // namespace flock::agent

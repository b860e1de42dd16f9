// SPDX-License-Identifier: Apache-2.0
// Lines of real containers, by a flockd that is killed, over a broker that is away: each arrives
// under its own number, or a gap says that it does not.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "app/device_itest.h"
#include "app/test_backend.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/files.h"
#include "domain/plan.h"
#include "mqtt/client.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::agent {
namespace {

namespace ft = flock::testing;
using device::v1::LogGap;
using ft::run_task;
using ft::TempDir;

class LogsOfContainers : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0 || !ft::require({"podman", "runc", "mosquitto"}))
      GTEST_SKIP() << "needs root, podman and mosquitto";
    broker.start();
    podman.start();
    image = podman.build("talk", kTalkingApp);
  }

  AgentOptions options(const Backend& backend) {
    AgentOptions out;
    out.server = backend.url;
    out.data_dir = dir.file("data");
    out.provisioning_key_file = dir.write("key", "flp_x\n");
    out.podman_socket = podman.socket();
    out.reconcile_interval = Duration(500);
    out.log_lines_per_second = out.log_bytes_per_second = 0;
    return out;
  }
  DesiredState wish(std::int64_t version, std::vector<std::string> command) const {
    DesiredState state;
    state.set_version(version);
    auto* service = state.add_services();
    service->set_name("web");
    service->set_image(image);
    service->set_network_mode("none");
    service->set_stop_grace_ms(2000);
    service->mutable_restart()->set_policy(device::v1::Restart::NO);
    service->set_has_command(true);
    for (const std::string& word : command) service->add_command(word);
    return state;
  }

  // Hears what devices say while `body` runs.
  void with_ears(std::function<Task<void>(Backend&)> body) {
    run_task(
        [&]() -> Task<void> {
          const Executor executor = co_await asio::this_coro::executor;
          Backend backend(executor);
          backend.brokers = {broker.url()};
          mqtt::ClientOptions hearing;
          hearing.url = broker.url();
          hearing.client_id = "ears";
          hearing.backoff_max = Duration(500);
          ears = std::make_unique<mqtt::Client>(executor, hearing);
          for (const char* filter :
               {"devices/+/logs", "devices/+/events", "devices/+/state", "devices/+/telemetry"}) {
            mqtt::Subscription all;
            all.filter = filter;
            co_await ears->subscribe(all, [this](mqtt::Delivery delivery) {
              if (delivery.message.topic.ends_with("/logs")) take(delivery.message.payload);
              delivery.ack();
            });
          }
          TaskScope scope(executor);
          scope.spawn("ears", ears->run());
          co_await body(backend);
          scope.cancel();
          co_await scope.join();
          ears.reset();  // before the loop that it lives on
          co_await backend.server.stop();
        },
        Duration(120'000));
  }
  Task<void> want(std::string device, DesiredState state) {
    mqtt::Message message;
    message.topic = "devices/" + device + "/desired";
    message.retain = true;
    message.payload = state.SerializeAsString();
    co_await ears->publish(message);
  }
  void take(const std::string& payload) {
    device::v1::LogBatch batch;
    ASSERT_TRUE(batch.ParseFromString(payload));
    EXPECT_FALSE(batch.boot_id().empty());
    EXPECT_GT(batch.seq(), 0);
    for (const auto& stream : batch.streams()) {
      EXPECT_EQ(stream.service(), "web");
      epochs.insert(stream.epoch());
      for (const auto& line : stream.lines()) {
        const auto [known, fresh] = lines.try_emplace(line.number(), line.text());
        EXPECT_TRUE(fresh || known->second == line.text()) << "number " << line.number();
        if (!fresh) ++repeated;
      }
      for (const LogGap& gap : stream.gaps()) {
        for (std::int64_t i = 0; i < gap.count(); ++i) gaps[gap.first_number() + i] = gap.reason();
      }
    }
  }
  Task<void> until(std::string what, std::function<bool()> condition) {
    for (int i = 0; i < 1200; ++i) {
      if (condition()) co_return;
      co_await sleep_for(Duration(50));
    }
    throw Error(Code::kTimeout, "did not happen in time: " + what + "; " +
                                    std::to_string(lines.size()) + " lines, " +
                                    std::to_string(gaps.size()) + " in gaps");
  }
  // "word n ..." -> n, or 0.
  static int count_of(const std::string& text, const std::string& word) {
    int n = 0;
    if (text.starts_with(word + " "))
      std::from_chars(text.data() + word.size() + 1, text.data() + text.size(), n);
    return n;
  }
  // Each number up to `count` is a line or in a gap. Both only if it was on its way when the broker
  // went, was kept, had to go, and arrived all the same: one batch at most.
  void expect_accounted(std::int64_t count, int both_allowed = 0) const {
    int both = 0;
    for (std::int64_t n = 1; n <= count; ++n) {
      ASSERT_TRUE(lines.contains(n) || gaps.contains(n)) << n;
      both += lines.contains(n) && gaps.contains(n) ? 1 : 0;
    }
    EXPECT_LE(both, both_allowed);
    for (const auto& [number, text] : lines) EXPECT_EQ(count_of(text, "one"), number);
  }
  void expect_gaps(LogGap::Reason reason) const {
    for (const auto& [number, why] : gaps) ASSERT_EQ(why, reason) << number;
  }
  std::int64_t spooled() const {
    std::int64_t bytes = 0;
    for (const char* kind : {"logs", "events", "telemetry"}) {
      const std::string folder = dir.file(std::string("data/spool/") + kind);
      for (const std::string& name : list_files(folder, ".spool"))
        bytes += static_cast<std::int64_t>(read_file(folder + "/" + name).value_or("").size());
    }
    return bytes;
  }
  std::size_t accounted() const {
    return lines.size() + static_cast<std::size_t>(std::ranges::count_if(
                              gaps, [&](const auto& gap) { return !lines.contains(gap.first); }));
  }

  ft::Mosquitto broker;
  ft::Podman podman;
  TempDir dir;
  std::string image;
  std::unique_ptr<mqtt::Client> ears;
  std::set<std::int64_t> epochs;
  std::map<std::int64_t, std::string> lines;  // by number
  std::map<std::int64_t, LogGap::Reason> gaps;
  int repeated = 0;
};

TEST_F(LogsOfContainers, NothingIsLostOverKillsOutagesAndAnUpdate) {
  with_ears([&](Backend& backend) -> Task<void> {
    const std::string log = dir.file("flockd.log");
    auto flockd = std::make_unique<Flockd>(options(backend), log);
    co_await want(backend.device, wish(1, {"6000", "40", "50", "one"}));
    co_await until("the first lines", [&] { return lines.size() > 300; });
    // Killed within a burst, and once more before it has said much.
    for (int i = 0; i < 2; ++i) {
      flockd->end(SIGKILL);
      flockd = std::make_unique<Flockd>(options(backend), log);
      co_await sleep_for(Duration(700));
    }
    // The broker is away longer than the uplink waits in memory; flockd is killed meanwhile.
    broker.stop();
    co_await sleep_for(Duration(4'000));
    flockd->end(SIGKILL);
    flockd = std::make_unique<Flockd>(options(backend), log);
    co_await sleep_for(Duration(4'000));
    broker.start();
    co_await until("all lines", [&] { return lines.size() >= 6000; });
    expect_accounted(6000);
    EXPECT_TRUE(gaps.empty());

    // Numbers go on in the next container; flockd is stopped while it writes.
    co_await want(backend.device, wish(2, {"2000", "40", "50", "two"}));
    co_await until("the next container's", [&] { return lines.size() > 6300; });
    flockd->end(SIGTERM);
    flockd = std::make_unique<Flockd>(options(backend), log);
    co_await until("all lines", [&] { return lines.size() >= 8000; });
    for (std::int64_t n = 6001; n <= 8000; ++n) EXPECT_EQ(count_of(lines.at(n), "two"), n - 6000);
    EXPECT_TRUE(gaps.empty());
    EXPECT_EQ(epochs.size(), 1U) << "numbers began anew";
    flockd->end(SIGTERM);
    RecordProperty("repeated_lines", repeated);
  });
}

// Some 30 MB, of which conmon keeps the last 10 at most.
TEST_F(LogsOfContainers, WhatIsRotatedWhileItIsReadIsThereOrAGap) {
  constexpr int kLines = 240'000;
  with_ears([&](Backend& backend) -> Task<void> {
    Flockd flockd(options(backend), dir.file("flockd.log"));
    co_await want(backend.device, wish(1, {std::to_string(kLines), "2000", "1", "one"}));
    const auto last = [&] { return lines.empty() ? 0 : count_of(lines.rbegin()->second, "one"); };
    co_await until("the last line", [&] { return last() == kLines; });
    int before = 0, missing = 0;
    for (const auto& [number, text] : lines) {
      const int count = count_of(text, "one");
      EXPECT_GT(count, before);
      const int skipped = count - before - 1;
      if (skipped > 0)
        EXPECT_TRUE(gaps.contains(number - 1)) << skipped << " lines before " << text;
      missing += skipped;
      before = count;
    }
    EXPECT_EQ(accounted(), static_cast<std::size_t>(lines.rbegin()->first)) << "a hole in numbers";
    expect_gaps(LogGap::UNREADABLE);
    EXPECT_EQ(epochs.size(), 1U);
    RecordProperty("missing_lines", missing);
    std::printf("%d lines, %zu gaps, %d lines missing\n", kLines, gaps.size(), missing);
    flockd.end(SIGTERM);
  });
}

TEST_F(LogsOfContainers, LinesOverTheRateAreCountedExactly) {
  with_ears([&](Backend& backend) -> Task<void> {
    AgentOptions limited = options(backend);
    limited.log_lines_per_second = 100;
    Flockd flockd(limited, dir.file("flockd.log"));
    co_await want(backend.device, wish(1, {"4000", "400", "100", "one"}));
    co_await until("all lines", [&] { return accounted() >= 4000; });
    expect_accounted(4000);
    expect_gaps(LogGap::RATE_LIMITED);
    // 500 at once and 100 a second after it.
    EXPECT_GE(lines.size(), 500U);
    EXPECT_LE(lines.size(), 1500U);
    flockd.end(SIGTERM);
  });
}

TEST_F(LogsOfContainers, WhatTheFullSpoolDropsIsCountedExactly) {
  with_ears([&](Backend& backend) -> Task<void> {
    AgentOptions little = options(backend);
    little.spool_limit = 256 << 10;
    Flockd flockd(little, dir.file("flockd.log"));
    co_await want(backend.device, wish(1, {"12000", "200", "80", "one"}));
    co_await until("the first lines", [&] { return !lines.empty(); });
    broker.stop();
    co_await until("a full spool", [&] { return spooled() > little.spool_limit * 3 / 4; });
    co_await sleep_for(Duration(2'000));
    broker.start();
    co_await until("all lines", [&] { return accounted() >= 12000; });
    expect_accounted(12000, 1000);
    EXPECT_FALSE(gaps.empty());
    expect_gaps(LogGap::SPOOL_FULL);
    EXPECT_LE(spooled(), little.spool_limit);
    flockd.end(SIGTERM);
  });
}

TEST_F(LogsOfContainers, WritesNothingWhileTheyAreSilentAndConnected) {
  with_ears([&](Backend& backend) -> Task<void> {
    Flockd flockd(options(backend), dir.file("flockd.log"));
    co_await want(backend.device, wish(1, {"100", "100", "1", "one"}));
    co_await until("all lines", [&] { return lines.size() >= 100; });
    EXPECT_TRUE(list_files(dir.file("data/spool/logs"), ".spool").empty());
    EXPECT_TRUE(list_files(dir.file("data/spool/telemetry"), ".spool").empty());
    flockd.end(SIGTERM);
    EXPECT_TRUE(list_files(dir.file("data/spool/logs"), ".spool").empty());
    expect_accounted(100);
  });
}

}  // namespace
}  // namespace flock::agent

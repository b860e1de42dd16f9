// SPDX-License-Identifier: Apache-2.0
#include "link/uplink.h"

#include <gtest/gtest.h>

#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/random.h"
#include "flock/device/v1/device.pb.h"
#include "testing/process.h"
#include "testing/run_task.h"

namespace flock::agent {
namespace {

using device::v1::LogBatch;
using flock::testing::run_task;
using flock::testing::TempDir;

std::string log_batch(std::int64_t first, int count, std::size_t bytes = 20) {
  LogBatch batch;
  auto* stream = batch.add_streams();
  stream->set_service("web");
  stream->set_epoch(7);
  for (int i = 0; i < count; ++i) {
    auto* line = stream->add_lines();
    line->set_number(first + i);
    line->set_at_ms(1000 + first + i);
    line->set_text(std::string(bytes, 'x'));
  }
  return batch.SerializeAsString();
}

std::string telemetry(int points, std::size_t bytes = 0) {
  device::v1::TelemetryBatch batch;
  batch.set_boot_id(std::string(bytes, 'b'));
  for (int i = 0; i < points; ++i) batch.add_points()->set_at_ms(i);
  return batch.SerializeAsString();
}

class UplinkTest : public ::testing::Test {
 protected:
  void SetUp() override { log::set_level(log::Level::kOff); }
  void TearDown() override { log::set_level(log::Level::kInfo); }

  Uplink::Options options(std::int64_t limit = 1 << 20) {
    Uplink::Options out;
    out.directory = dir.file("spool");
    out.limit_bytes = limit;
    out.reconnect_spread = Duration(0);
    out.drain_bytes_per_second = 100 << 20;
    out.patience = Duration(50);
    out.boot_id = "boot";
    out.next_seq = [this] { return ++seq; };
    out.publish = [this](Upward kind, std::string payload) -> Task<void> {
      while (hang) co_await sleep_for(Duration(5));
      if (broken) throw Error(Code::kTimeout, "not acknowledged");
      if (slow.count() > 0) co_await sleep_for(slow);
      arrived.emplace_back(kind, std::move(payload));
    };
    return out;
  }
  static Task<void> until(std::string what, std::function<bool()> condition) {
    for (int i = 0; i < 400; ++i) {
      if (condition()) co_return;
      co_await sleep_for(Duration(5));
    }
    throw Error(Code::kTimeout, "did not happen in time: " + what);
  }
  bool wrote(const std::string& kind) const {
    return !list_files(dir.file("spool/" + kind), ".spool").empty();
  }
  std::vector<std::string> of(Upward kind) const {
    std::vector<std::string> out;
    for (const auto& [k, payload] : arrived)
      if (k == kind) out.push_back(payload);
    return out;
  }
  // Every number from 1 to `last` arrived as a line or in a gap; answers how many in gaps.
  std::int64_t accounted(std::int64_t last) const {
    std::map<std::int64_t, int> lines, gaps;
    for (const std::string& payload : of(Upward::kLogs)) {
      LogBatch batch;
      EXPECT_TRUE(batch.ParseFromString(payload));
      EXPECT_EQ(batch.streams(0).epoch(), 7);
      for (const auto& line : batch.streams(0).lines()) ++lines[line.number()];
      for (const auto& gap : batch.streams(0).gaps()) {
        EXPECT_EQ(gap.reason(), device::v1::LogGap::SPOOL_FULL);
        EXPECT_LE(gap.from_ms(), 1000 + gap.first_number());
        EXPECT_EQ(gap.to_ms(), 1000 + gap.first_number() + gap.count() - 1);
        for (std::int64_t i = 0; i < gap.count(); ++i) ++gaps[gap.first_number() + i];
      }
    }
    for (std::int64_t n = 1; n <= last; ++n)
      EXPECT_EQ((lines.contains(n) ? 1 : 0) + (gaps.contains(n) ? 1 : 0), 1) << n;
    return static_cast<std::int64_t>(gaps.size());
  }

  TempDir dir;
  std::vector<std::pair<Upward, std::string>> arrived;
  bool hang = false, broken = false;
  Duration slow{0};
  std::int64_t seq = 0;
};

TEST_F(UplinkTest, SendsAtOnceAndWritesNothingWhileConnected) {
  run_task([&]() -> Task<void> {
    Uplink uplink(co_await asio::this_coro::executor, options());
    uplink.start();
    uplink.set_connected(true);
    uplink.send(Upward::kEvents, "event");
    co_await uplink.deliver(Upward::kLogs, log_batch(1, 3));
    co_await until("all", [&] { return arrived.size() == 2; });
    uplink.send(Upward::kTelemetry, telemetry(1));
    co_await until("telemetry", [&] { return arrived.size() == 3; });
    // In a short outage lines are waited for in memory.
    uplink.set_connected(false);
    uplink.send(Upward::kLogs, log_batch(4, 3));
    uplink.set_connected(true);
    co_await until("all", [&] { return arrived.size() == 4; });
    co_await uplink.stop(Duration(100));
    EXPECT_FALSE(wrote("telemetry"));
    EXPECT_FALSE(wrote("logs"));
    EXPECT_EQ(uplink.waiting_records(), 0);
  });
}

TEST_F(UplinkTest, AnEventIsOnDiskUntilTheBrokerHasIt) {
  run_task([&]() -> Task<void> {
    Uplink uplink(co_await asio::this_coro::executor, options());
    uplink.start();
    uplink.set_connected(true);
    hang = true;
    uplink.send(Upward::kEvents, "a");
    EXPECT_EQ(uplink.waiting_records(), 1);
    bool delivered = false;
    const auto deliver = [&]() -> Task<void> {
      co_await uplink.deliver(Upward::kEvents, "b");
      delivered = true;
    };
    TaskScope scope(co_await asio::this_coro::executor);
    scope.spawn("deliver", deliver());
    co_await until("b on disk", [&] { return uplink.waiting_records() == 2; });
    co_await sleep_for(Duration(20));
    EXPECT_FALSE(delivered) << "the broker may have it in a moment";
    uplink.set_connected(false);
    co_await until("delivered", [&] { return delivered; });
    uplink.set_connected(true);
    hang = false;
    co_await until("done", [&] { return uplink.waiting_records() == 0; });
    EXPECT_EQ(of(Upward::kEvents), (std::vector<std::string>{"a", "b"}));
    co_await scope.join();
    co_await uplink.stop(Duration(100));
  });
}

TEST_F(UplinkTest, WhatIsOnItsWayWhenTheConnectionBreaksIsOnDiskAtOnce) {
  run_task([&]() -> Task<void> {
    Uplink uplink(co_await asio::this_coro::executor, options());
    uplink.start();
    uplink.set_connected(true);
    hang = true;
    uplink.send(Upward::kTelemetry, telemetry(1));
    uplink.send(Upward::kTelemetry, telemetry(2));
    co_await sleep_for(Duration(10));
    EXPECT_FALSE(wrote("telemetry"));
    uplink.set_connected(false);
    EXPECT_EQ(uplink.waiting_records(), 2);
    uplink.send(Upward::kTelemetry, telemetry(3));
    EXPECT_EQ(uplink.waiting_records(), 3);
    hang = false;  // the first one's answer was on its way, too
    co_await until("the first", [&] { return uplink.waiting_records() == 2; });
    uplink.set_connected(true);
    co_await until("all", [&] { return uplink.waiting_records() == 0; });
    EXPECT_EQ(of(Upward::kTelemetry),
              (std::vector<std::string>{telemetry(1), telemetry(2), telemetry(3)}));
    co_await uplink.stop(Duration(100));
  });
}

TEST_F(UplinkTest, WhatTheBrokerIsSlowToAcknowledgeIsOnDiskMeanwhile) {
  run_task([&]() -> Task<void> {
    Uplink uplink(co_await asio::this_coro::executor, options());
    uplink.start();
    uplink.set_connected(true);
    hang = true;
    uplink.send(Upward::kTelemetry, telemetry(1));
    co_await until("it on disk", [&] { return uplink.waiting_records() == 1; });
    co_await uplink.deliver(Upward::kLogs, log_batch(1, 2));
    EXPECT_EQ(uplink.waiting_records(), 2);
    hang = false;
    co_await until("all", [&] { return uplink.waiting_records() == 0; });
    EXPECT_EQ(arrived.size(), 2U) << "each once";
    co_await uplink.stop(Duration(100));
  });
}

TEST_F(UplinkTest, KeepsWhatComesInAnOutageOverARestartAndSendsItInOrder) {
  run_task([&]() -> Task<void> {
    {
      Uplink uplink(co_await asio::this_coro::executor, options());
      uplink.start();
      for (int i = 0; i < 20; ++i) {
        uplink.send(Upward::kEvents, "event " + std::to_string(i));
        if (i % 5 == 0) co_await uplink.deliver(Upward::kLogs, log_batch(1 + i / 5 * 10, 10));
      }
      co_await until("stored", [&] { return uplink.waiting_records() == 24; });
      co_await uplink.stop(Duration(0));
    }
    EXPECT_TRUE(arrived.empty());
    Uplink uplink(co_await asio::this_coro::executor, options());
    uplink.start();
    EXPECT_EQ(uplink.waiting_records(), 24);
    uplink.set_connected(true);
    uplink.send(Upward::kEvents, "event 20");
    co_await until("all", [&] { return arrived.size() == 25; });
    const auto events = of(Upward::kEvents);
    for (std::size_t i = 0; i < events.size(); ++i)
      EXPECT_EQ(events[i], "event " + std::to_string(i));
    EXPECT_EQ(accounted(40), 0);
    co_await until("done", [&] { return uplink.waiting_records() == 0; });
    co_await uplink.stop(Duration(100));
  });
}

TEST_F(UplinkTest, WhenFullTelemetryGoesFirstThenLinesWithGapsThenEvents) {
  run_task([&]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    std::int64_t points = 0;
    {
      Uplink::Options quick = options(256 << 10);
      quick.patience = Duration(0);
      Uplink uplink(executor, quick);
      uplink.start();
      for (int i = 0; i < 40; ++i) uplink.send(Upward::kTelemetry, telemetry(3, 2000));
      for (int i = 0; i < 100; ++i) {
        uplink.send(Upward::kLogs, log_batch(1 + i * 10, 10, 500));
        if (i % 10 == 0) co_await sleep_for(Duration(5));
      }
      for (int i = 0; i < 20; ++i)
        uplink.send(Upward::kEvents, std::to_string(i) + std::string(1000, 'e'));
      co_await until("stored", [&] { return uplink.waiting_bytes() > 200'000; });
      EXPECT_EQ(uplink.lost().telemetry_points, 120);
      // What is worth less makes nothing go.
      const std::int64_t lines = uplink.lost().log_lines;
      for (int i = 0; i < 10; ++i) uplink.send(Upward::kTelemetry, telemetry(3, 2000));
      co_await until("telemetry's end", [&] { return uplink.lost().telemetry_points > 120; });
      EXPECT_EQ(uplink.lost().log_lines, lines);
      co_await uplink.stop(Duration(0));
      points = uplink.lost().telemetry_points;
      EXPECT_GT(uplink.lost().log_lines, 500);
      EXPECT_EQ(uplink.lost().events, 0);
      EXPECT_LE(uplink.waiting_bytes(), 256 << 10);
    }
    Uplink uplink(executor, options(256 << 10));
    uplink.start();
    const std::int64_t lost = uplink.lost().log_lines;
    EXPECT_EQ(uplink.lost().telemetry_points, points) << "counted over a restart";
    uplink.set_connected(true);
    co_await until(
        "all", [&] { return uplink.waiting_records() == 0 && of(Upward::kEvents).size() == 20; });
    EXPECT_EQ(accounted(1000), lost);
    // Told once.
    const std::size_t batches = of(Upward::kLogs).size();
    uplink.set_connected(false);
    uplink.set_connected(true);
    co_await uplink.deliver(Upward::kLogs, log_batch(1001, 1));
    EXPECT_EQ(of(Upward::kLogs).size(), batches + 1);
    co_await uplink.stop(Duration(100));
  });
}

// Whatever happens: a line arrives, or a gap with its number does; none of both kinds.
TEST_F(UplinkTest, AccountsForEveryLineWhateverHappens) {
  const auto seed = static_cast<unsigned>(random_below(1'000'000));
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::srand(seed);
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        auto uplink = std::make_unique<Uplink>(executor, options(64 << 10));
        uplink->start();
        std::int64_t number = 1;
        slow = Duration(1);
        for (int i = 0; i < 100; ++i) {
          switch (std::rand() % 8) {
            case 0:
              uplink->set_connected(std::rand() % 2 == 0);
              break;
            case 1:
              broken = std::rand() % 4 == 0;
              break;
            case 2: {
              co_await uplink->stop(Duration(std::rand() % 3));
              uplink = std::make_unique<Uplink>(executor, options(64 << 10));
              uplink->start();
              break;
            }
            default:
              uplink->send(Upward::kEvents, std::string(300, 'e'));
              uplink->send(Upward::kLogs, log_batch(number, 10, 300));
              number += 10;
              if (std::rand() % 4 == 0) co_await sleep_for(Duration(std::rand() % 20));
          }
        }
        broken = false;
        uplink->set_connected(false);
        uplink->set_connected(true);
        co_await uplink->deliver(Upward::kLogs, log_batch(number++, 1));
        co_await until("all", [&] { return uplink->waiting_records() == 0; });
        co_await uplink->stop(Duration(1000));
        EXPECT_EQ(accounted(number - 1), uplink->lost().log_lines);
      },
      Duration(20'000));
}

TEST_F(UplinkTest, KeepsWhatTheBrokerDoesNotAcknowledge) {
  run_task([&]() -> Task<void> {
    Uplink uplink(co_await asio::this_coro::executor, options());
    uplink.start();
    uplink.set_connected(true);
    broken = true;
    co_await uplink.deliver(Upward::kLogs, log_batch(1, 2));
    EXPECT_TRUE(wrote("logs"));
    EXPECT_EQ(uplink.waiting_records(), 1);
    broken = false;
    uplink.set_connected(false);
    uplink.set_connected(true);
    co_await until("it", [&] { return arrived.size() == 1; });
    co_await uplink.stop(Duration(100));
    EXPECT_EQ(uplink.waiting_records(), 0);
  });
}

TEST_F(UplinkTest, PutsOnDiskAtTheEndWhatIsNotAcknowledged) {
  run_task([&]() -> Task<void> {
    Uplink uplink(co_await asio::this_coro::executor, options());
    uplink.start();
    uplink.set_connected(true);
    hang = true;
    uplink.send(Upward::kEvents, "a");
    uplink.send(Upward::kEvents, "b");
    uplink.send(Upward::kTelemetry, telemetry(1));
    co_await sleep_for(Duration(10));
    co_await uplink.stop(Duration(50));
    EXPECT_EQ(uplink.waiting_records(), 3);
    co_await uplink.deliver(Upward::kLogs, log_batch(1, 1));  // comes late
    EXPECT_EQ(uplink.waiting_records(), 4);
  });
}

TEST_F(UplinkTest, WithoutADiskItCountsWhatIsLostAndGoesOn) {
  dir.write("spool", "no folder");
  run_task([&]() -> Task<void> {
    Uplink uplink(co_await asio::this_coro::executor, options());
    uplink.start();
    co_await uplink.deliver(Upward::kLogs, log_batch(1, 5));
    EXPECT_EQ(uplink.lost().log_lines, 5);
    uplink.set_connected(true);
    co_await uplink.deliver(Upward::kLogs, log_batch(6, 5));
    EXPECT_EQ(accounted(10), 5);
    broken = true;  // events wait in memory then
    uplink.send(Upward::kEvents, "a");
    co_await sleep_for(Duration(20));
    broken = false;
    co_await uplink.deliver(Upward::kEvents, "b");
    EXPECT_EQ(of(Upward::kEvents), (std::vector<std::string>{"a", "b"}));
    uplink.set_connected(false);
    uplink.send(Upward::kEvents, "c");
    EXPECT_EQ(uplink.lost().events, 1);
    co_await uplink.stop(Duration(100));
  });
}

}  // namespace
}  // namespace flock::agent

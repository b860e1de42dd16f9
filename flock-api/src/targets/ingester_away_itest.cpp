// SPDX-License-Identifier: Apache-2.0
// The ingester while a store is away, hangs, or leaves it without room: nothing is lost, and what
// policy drops is told.
#include <sys/mount.h>

#include "targets/ingester_itest.h"

namespace flock::targets::ingester_itest {

// Every line is there once, or in a gap: while the store is away, over a restart, and when the disk
// was too small for all of it.
TEST_F(Ingester, KeepsOnDiskWhatTheTimeSeriesCannotTake) {
  on_site([](Site& site) -> Task<void> {
    const std::string id = co_await site.device();
    site.series.away = true;
    for (int i = 0; i < 20; ++i)
      co_await site.send(id, "logs", Site::lines(1 + i * 10, 10).SerializeAsString());
    co_await sleep_for(Duration(500));
    EXPECT_EQ((co_await site.numbers(id)).size(), 0u);
    co_await site.restart();
    co_await site.send(id, "logs", Site::lines(201, 10).SerializeAsString());
    const std::int64_t back = now_ms();
    site.series.away = false;
    co_await site.until_lines(id, 210);
    for (const auto& [number, times] : co_await site.numbers(id)) EXPECT_EQ(times, 1) << number;
    // Who follows looks for what has arrived lately.
    stores::LogQuery late;
    late.subject = {site.org, {}, {id}, {}};
    EXPECT_EQ((co_await site.series.arrived(late, back)).size(), 210u);
    co_await site.send(id, "logs", Site::lines(211, 1).SerializeAsString());
    co_await site.until_lines(id, 211);
  });
}

TEST_F(Ingester, AFullSpoolLeavesExactGaps) {
  on_site([](Site& site) -> Task<void> {
    co_await site.target->drain();
    site.target.reset();
    site.settings.ingester_spool_bytes = 1 << 20;
    co_await site.start();
    const std::string id = co_await site.device();
    site.series.away = true;
    constexpr int kBatches = 100, kLines = 20;
    for (int i = 0; i < kBatches; ++i)
      co_await site.send(id, "logs", Site::lines(1 + i * kLines, kLines, 1000).SerializeAsString());
    co_await sleep_for(Duration(1000));
    site.series.away = false;
    co_await site.until_lines(id, kBatches * kLines);
    int lines = 0, gaps = 0;
    for (const auto& [number, times] : co_await site.numbers(id)) {
      EXPECT_TRUE(times == 1 || times == -100) << number << " " << times;
      (times == 1 ? lines : gaps) += 1;
    }
    EXPECT_EQ(lines + gaps, kBatches * kLines);
    EXPECT_GT(gaps, kBatches * kLines / 4);
    EXPECT_GT(lines, kBatches * kLines / 5);
  });
}

// The store is back while the disk is still full of what waits for it.
TEST_F(Ingester, AFullDiskEmptiesIntoTheStore) {
  on_site([](Site& site) -> Task<void> {
    co_await site.target->drain();
    site.target.reset();
    const std::string folder = site.settings.ingester_spool_directory = site.dir.file("small");
    std::filesystem::create_directory(folder);
    if (::mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=256k") != 0) {
      co_await site.start();
      co_return;  // needs root
    }
    co_await site.start();
    const std::string id = co_await site.device();
    site.series.away = true;
    for (int i = 0; i < 50; ++i)
      co_await site.send(id, "logs", Site::lines(1 + i * 10, 10, 1000).SerializeAsString());
    co_await sleep_for(Duration(1500));
    site.series.away = false;
    std::exception_ptr failure;
    try {
      co_await site.until_lines(id, 500);
      for (const auto& [number, times] : co_await site.numbers(id)) EXPECT_EQ(times, 1) << number;
    } catch (...) {
      failure = std::current_exception();
    }
    co_await site.target->drain();
    site.target.reset();
    ::umount(folder.c_str());
    if (failure) std::rethrow_exception(failure);
  });
}

// Messages go to disk meanwhile; nobody waits for an insertion's time again and again.
TEST_F(Ingester, AStoreThatHangsIsAskedSomethingShort) {
  on_site([](Site& site) -> Task<void> {
    const std::string id = co_await site.device();
    site.series.hangs = true;
    co_await site.send(id, "logs", Site::lines(1, 1).SerializeAsString());
    co_await sleep_for(FlakySeries::kTime + Duration(500));
    for (int i = 2; i <= 6; ++i) {
      co_await site.send(id, "logs", Site::lines(i, 1).SerializeAsString());
      co_await sleep_for(Duration(1000));
    }
    EXPECT_EQ(site.series.tries, 1);
    site.series.hangs = false;
    co_await site.until_lines(id, 6);
  });
}

// Comings, goings and updates are not pushed out by the lines that come meanwhile.
TEST_F(Ingester, AFullSpoolKeepsTheHistory) {
  on_site([](Site& site) -> Task<void> {
    co_await site.target->drain();
    site.target.reset();
    site.settings.ingester_spool_bytes = 1 << 20;
    co_await site.start();
    const std::string id = co_await site.device();
    site.series.away = true;
    co_await site.tell(id, DeviceEvent::ONLINE, now_ms());
    co_await site.until("the hello", [&] { return site.turns[id] == "connected"; });
    for (int i = 0; i < 100; ++i)
      co_await site.send(id, "logs", Site::lines(1 + i * 20, 20, 1000).SerializeAsString());
    co_await sleep_for(Duration(1000));
    site.series.away = false;
    co_await site.until_lines(id, 2000);
    co_await eventually("the history", [&]() -> Task<bool> {
      const stores::Subject subject{site.org, {}, {id}, {}};
      co_return (co_await site.series.connectivity(subject, 0, INT64_MAX, 10)).size() == 1u;
    });
  });
}

TEST_F(Ingester, TelemetryGoesOnWhilePostgresIsAwayAndReportsWait) {
  on_site([](Site& site) -> Task<void> {
    const std::string id = co_await site.device();
    co_await site.send(id, "logs", Site::lines(1, 1).SerializeAsString());
    co_await site.until_lines(id, 1);
    site.servers.postgres.kill9();
    co_await site.send(id, "logs", Site::lines(2, 1).SerializeAsString());
    TaskScope waiting(site.executor);
    waiting.spawn("hello", site.tell(id, DeviceEvent::ONLINE, now_ms()));
    co_await site.until_lines(id, 2);
    co_await sleep_for(Duration(300));
    EXPECT_EQ(site.turns[id], "");
    site.servers.postgres.start();
    co_await site.until("the hello", [&] { return site.turns[id] == "connected"; });
    co_await waiting.join();
    site.servers.valkey.kill9();
    const std::int64_t seq = now_ms();
    co_await site.report(id, seq, "r1");
    co_await sleep_for(Duration(300));
    EXPECT_EQ(site.heard["device/state"], 0);
    site.servers.valkey.start();
    co_await site.until("the report", [&] { return site.heard["device/state"] > 0; });
  });
}

}  // namespace flock::targets::ingester_itest

// SPDX-License-Identifier: Apache-2.0
#include "logs/log_follower.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "flock/device/v1/device.pb.h"
#include "logs/test_lines.h"
#include "testing/process.h"
#include "testing/run_task.h"

namespace flock::agent {
namespace {

using device::v1::LogBatch;
using device::v1::LogGap;
using flock::testing::run_task;
using flock::testing::TempDir;

// The kernel's ring: each opening of the real one begins with the oldest message that is left.
// One record a read, as the kernel gives them: a pipe in packet mode (pipe(2), O_DIRECT).
class Ring {
 public:
  explicit Ring(const std::string& path) {
    EXPECT_EQ(::mkfifo(path.c_str(), 0600), 0);
    file_ = FileDescriptor(path, O_RDWR | O_NONBLOCK);
    EXPECT_EQ(::fcntl(file_.get(), F_SETFL, O_DIRECT | O_NONBLOCK), 0);
  }
  // A message's text is its sequence number.
  void put(int first, int end) const {
    for (int i = first; i < end; ++i) {
      const std::string number = std::to_string(i);
      write_all(file_.get(), "6," + number + ",1000,-;" + number + "\n", "the ring");
    }
  }

 private:
  FileDescriptor file_;
};

// Follows files that the test writes.
class FollowerTest : public ::testing::Test {
 protected:
  void SetUp() override { log::set_level(log::Level::kOff); }
  void TearDown() override { log::set_level(log::Level::kInfo); }

  LogFollower::Options options() {
    LogFollower::Options out;
    out.data_dir = dir.path();
    out.boot_id = boot;
    out.lines_per_second = rate;
    out.bytes_per_second = 0;
    out.batch = Duration(batch_ms);
    out.kernel = !kernel_path.empty();
    out.kernel_path = kernel_path;
    out.save = Duration(save_ms);
    out.next_seq = [this] { return ++seq; };
    out.deliver = [this](std::string payload) -> Task<void> {
      LogBatch batch;
      EXPECT_TRUE(batch.ParseFromString(payload));
      EXPECT_LE(payload.size(), 100U << 10);
      for (const auto& stream : batch.streams()) take(stream);
      co_await sleep_for(Duration(1));
    };
    return out;
  }
  void take(const device::v1::LogStream& stream) {
    auto& lines = epochs[stream.epoch()];
    for (const auto& line : stream.lines()) {
      const auto [known, fresh] = lines.try_emplace(line.number(), line.text());
      EXPECT_TRUE(fresh || known->second == line.text())
          << "number " << line.number() << " is two lines: " << known->second << ", "
          << line.text();
    }
    for (const LogGap& gap : stream.gaps()) gaps[gap.reason()] += gap.count();
    for (const LogGap& gap : stream.gaps())
      for (std::int64_t i = 0; i < gap.count(); ++i)
        lines.try_emplace(gap.first_number() + i, "(gap)");
  }
  // Runs a follower while `body` does things; `finish`: it ends well, else as if it were killed.
  void follow(std::function<Task<void>(LogFollower&)> body, bool finish = true) {
    run_task(
        [&]() -> Task<void> {
          const Executor executor = co_await asio::this_coro::executor;
          write(0, 0);
          LogFollower follower(executor, options());
          TaskScope scope(executor);
          scope.spawn("follower", follower.run());
          follower.follow({{"web", container, path()}});
          co_await body(follower);
          if (finish) {
            follower.finish();
            EXPECT_TRUE(co_await follower.wait_finished(Duration(4000)));
          }
          scope.cancel();
          co_await scope.join();
        },
        Duration(10'000));
  }
  void write(int first, int end) {
    std::ofstream out(path(), std::ios::app);
    for (int i = first; i < end; ++i) out << piece(clock_ms, std::to_string(i)) << "\n";
  }
  // As conmon does it when a log is full.
  void rotate(int first, int end) {
    const std::string next = path() + ".tmp";
    std::ofstream out(next);
    for (int i = first; i < end; ++i) out << piece(clock_ms, std::to_string(i)) << "\n";
    out.close();
    std::filesystem::rename(next, path());
  }
  Task<void> until(std::size_t lines) {
    for (int i = 0; i < 600 && total() < lines; ++i) co_await sleep_for(Duration(10));
    EXPECT_GE(total(), lines);
  }
  std::size_t total() const {
    std::size_t sum = 0;
    for (const auto& [epoch, lines] : epochs) sum += lines.size();
    return sum;
  }
  // The texts 0, 1, ..., count - 1 in order under numbers without a hole.
  void expect_all(int count) {
    ASSERT_EQ(epochs.size(), 1U);
    int next = 0;
    for (const auto& [number, text] : epochs.begin()->second) {
      EXPECT_EQ(number, next + 1);
      EXPECT_EQ(text, std::to_string(next));
      ++next;
    }
    EXPECT_EQ(next, count);
  }
  std::string path() const { return dir.file(container + ".log"); }

  TempDir dir;
  std::string boot = "boot 1", container = "c1", kernel_path;
  std::int64_t rate = 0, seq = 0;
  int save_ms = 60'000, clock_ms = 0, batch_ms = 20;
  std::map<std::int64_t, std::map<std::int64_t, std::string>> epochs;  // number -> text
  std::map<int, std::int64_t> gaps;                                    // reason -> numbers
};

TEST_F(FollowerTest, ReadsWhatWasWrittenBeforeAndWhatComes) {
  write(0, 100);
  follow([&](LogFollower&) -> Task<void> {
    co_await until(100);
    write(100, 200);
    co_await until(200);
    write(200, 5000);
    co_await until(5000);
  });
  expect_all(5000);
  follow([&](LogFollower&) -> Task<void> {
    write(5000, 5010);
    co_await until(5010);
  });
  expect_all(5010);
}

TEST_F(FollowerTest, AfterAKillTheSameLinesHaveTheSameNumbers) {
  save_ms = 30;
  for (int round = 0; round < 8; ++round) {
    const auto body = [&](LogFollower&) -> Task<void> {
      write(round * 700, round * 700 + 700);
      co_await until(static_cast<std::size_t>(round * 700 + (round % 2 == 0 ? 100 : 700)));
    };
    follow(body, false);
  }
  follow([&](LogFollower&) -> Task<void> { co_await until(5600); });
  expect_all(5600);
  EXPECT_TRUE(gaps.empty());
}

TEST_F(FollowerTest, ReadsARotatedFileToItsEnd) {
  follow([&](LogFollower&) -> Task<void> {
    for (int i = 0; i < 10; ++i) {
      write(i * 300, i * 300 + 150);
      co_await sleep_for(Duration(30));
      write(i * 300 + 150, i * 300 + 200);
      std::filesystem::rename(path(), path() + ".old");
      write(i * 300 + 200, i * 300 + 300);
      co_await until(static_cast<std::size_t>(i) * 300 + 300);
    }
  });
  expect_all(3000);
}

TEST_F(FollowerTest, RotationsWithinOneLookLoseNothing) {
  batch_ms = 1000;
  follow([&](LogFollower&) -> Task<void> {
    write(0, 50);
    co_await until(50);
    for (int i = 1; i < 4; ++i) {
      rotate(i * 50, i * 50 + 40);
      co_await sleep_for(Duration(10));
      write(i * 50 + 40, i * 50 + 50);
    }
    co_await until(200);
  });
  expect_all(200);
  EXPECT_TRUE(gaps.empty());
}

TEST_F(FollowerTest, AFileThatIsGoneBeforeItCouldBeOpenedIsAGap) {
  write(0, 50);
  follow([&](LogFollower&) -> Task<void> {
    co_await until(50);
    write(50, 55);
    rotate(55, 60);
    rotate(60, 70);  // before anybody could look
    co_await until(66);
    rotate(70, 80);
  });
  EXPECT_EQ(gaps[LogGap::UNREADABLE], 1);
  ASSERT_EQ(epochs.size(), 1U);
  const auto& lines = epochs.begin()->second;
  EXPECT_EQ(lines.at(55), "54");
  EXPECT_EQ(lines.at(56), "(gap)");
  EXPECT_EQ(lines.at(57), "60");
  EXPECT_EQ(lines.at(76), "79");
  EXPECT_EQ(lines.size(), 76U);
}

// Files that are held open take room on the disk.
TEST_F(FollowerTest, HoldsAFewFilesAndTellsOfTheGapBehindThem) {
  batch_ms = 1000;
  follow([&](LogFollower&) -> Task<void> {
    write(0, 50);
    co_await until(50);
    for (int i = 1; i <= 6; ++i) {
      rotate(i * 50, i * 50 + 50);
      co_await sleep_for(Duration(5));
    }
    co_await until(201);
  });
  EXPECT_EQ(gaps[LogGap::UNREADABLE], 1);
  ASSERT_EQ(epochs.size(), 1U);
  const auto& lines = epochs.begin()->second;
  EXPECT_EQ(lines.at(150), "149");
  EXPECT_EQ(lines.at(151), "(gap)");
  EXPECT_EQ(lines.at(152), "300");
  EXPECT_EQ(lines.at(201), "349");
}

TEST_F(FollowerTest, NumbersGoOnWhenAContainerIsReplaced) {
  write(0, 50);
  follow([&](LogFollower& follower) -> Task<void> {
    co_await until(50);
    write(50, 60);
    ::unlink(path().c_str());  // removed with its last lines unread
    container = "c2";
    write(60, 100);
    follower.follow({{"web", container, path()}});
    co_await until(100);
    follower.follow({});
    container = "c3";
    write(100, 110);
    follower.follow({{"web", container, path()}});
  });
  expect_all(110);
}

TEST_F(FollowerTest, WhatNobodyCouldReadIsAGap) {
  write(0, 50);
  follow([&](LogFollower&) -> Task<void> { co_await until(50); });
  ::unlink(path().c_str());
  container = "c2";
  write(50, 60);
  follow([&](LogFollower&) -> Task<void> { co_await until(61); });
  ASSERT_EQ(epochs.size(), 1U);
  EXPECT_EQ(gaps[LogGap::UNREADABLE], 1);
  EXPECT_EQ(epochs.begin()->second.at(51), "(gap)");
  EXPECT_EQ(epochs.begin()->second.at(52), "50");
  // Killed: numbers may have been used for lines that are gone.
  const auto body = [&](LogFollower&) -> Task<void> {
    write(60, 70);
    co_await until(71);
  };
  follow(body, false);
  ::unlink(path().c_str());
  container = "c3";
  write(70, 80);
  follow([&](LogFollower&) -> Task<void> { co_await until(82); });
  ASSERT_EQ(epochs.size(), 2U);
  EXPECT_EQ(epochs.rbegin()->second.at(1), "(gap)");
  EXPECT_EQ(epochs.rbegin()->second.at(2), "70");
}

TEST_F(FollowerTest, AfterALossOfPowerNumbersBeginAnew) {
  write(0, 50);
  follow([&](LogFollower&) -> Task<void> { co_await until(50); }, false);
  boot = "boot 2";
  follow([&](LogFollower&) -> Task<void> { co_await until(100); });
  EXPECT_EQ(epochs.size(), 2U);
  // After a good end they do not.
  boot = "boot 3";
  write(50, 60);
  follow([&](LogFollower&) -> Task<void> { co_await until(110); });
  EXPECT_EQ(epochs.size(), 2U);
}

TEST_F(FollowerTest, CountsExactlyWhatIsOverTheRate) {
  rate = 10;
  write(0, 1000);
  follow([&](LogFollower&) -> Task<void> { co_await until(1000); });
  EXPECT_EQ(gaps[LogGap::RATE_LIMITED], 950);
  clock_ms = 2000;
  write(1000, 1030);
  follow([&](LogFollower&) -> Task<void> { co_await until(1030); });
  EXPECT_EQ(gaps[LogGap::RATE_LIMITED], 960);
  ASSERT_EQ(epochs.size(), 1U);
  EXPECT_EQ(epochs.begin()->second.rbegin()->first, 1030);
}

TEST_F(FollowerTest, DamagedPositionsCostAnEpochAndNoMore) {
  write(0, 20);
  follow([&](LogFollower&) -> Task<void> { co_await until(20); });
  dir.write("log-positions", "{\"boot_id\":1}");
  follow([&](LogFollower&) -> Task<void> { co_await until(40); });
  EXPECT_EQ(epochs.size(), 2U);
}

TEST_F(FollowerTest, TheKernelsMessagesKeepTheirNumbersWhileItsRingMovesOn) {
  for (const int first : {100, 0}) {
    SCOPED_TRACE(first);
    const TempDir other;
    const Ring ring(kernel_path = other.file("kmsg"));
    std::filesystem::remove(dir.file("log-positions"));
    epochs.clear();
    gaps.clear();
    const auto until_there = [&](std::size_t lines) {
      return [this, lines](LogFollower&) -> Task<void> { co_await until(lines); };
    };
    ring.put(first, first + 10);
    follow(until_there(10), false);  // killed before it saved more than where it began
    ring.put(first + 5, first + 15);
    follow(until_there(15));
    ring.put(first + 20, first + 25);
    follow(until_there(25));
    ASSERT_EQ(epochs.size(), 1U);
    EXPECT_EQ(gaps[LogGap::UNREADABLE], 5 + 5) << "five were sent before, nobody knows any more";
    for (const auto& [number, text] : epochs.begin()->second)
      EXPECT_EQ(text, number > 15 && number <= 20 ? "(gap)" : std::to_string(first + number - 1));
  }
}

TEST_F(FollowerTest, WhatTheKernelSaidBeforeAnybodyListenedIsNoGap) {
  const Ring ring(kernel_path = dir.file("kmsg"));
  follow([](LogFollower&) -> Task<void> { co_await sleep_for(Duration(50)); });
  ring.put(50, 55);
  follow([&](LogFollower&) -> Task<void> { co_await until(5); });
  EXPECT_TRUE(gaps.empty());
  EXPECT_EQ(epochs.begin()->second.at(1), "50");
}

}  // namespace
}  // namespace flock::agent

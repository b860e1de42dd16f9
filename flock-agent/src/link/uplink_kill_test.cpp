// SPDX-License-Identifier: Apache-2.0
// Killed (-9) at each step of its life, an uplink loses nothing that it had promised to keep, and
// the next one sends nothing that was never made.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <set>
#include <thread>

#include "async/event.h"
#include "async/loop.h"
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "flock/device/v1/device.pb.h"
#include "link/uplink.h"
#include "testing/process.h"
#include "testing/run_task.h"

namespace flock::agent {
namespace {

using flock::testing::run_task;
using flock::testing::TempDir;

constexpr int kMessages = 9;  // of each kind

// What the one that is killed has done: in memory that outlives it.
struct Story {
  std::atomic<int> marks{0};
  std::atomic<int> events{0}, telemetry{0};  // so many are promised to be kept
  std::atomic<bool> told[2][kMessages];      // the broker has it; telemetry, events
};

Story* new_story() {
  void* memory =
      ::mmap(nullptr, sizeof(Story), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  FLOCK_ASSERT(memory != MAP_FAILED);
  return new (memory) Story;
}

std::string message(Upward kind, int i) {
  if (kind == Upward::kEvents) return "event " + std::to_string(i);
  device::v1::TelemetryBatch batch;
  batch.set_seq(i);
  batch.add_points()->set_at_ms(i);
  return batch.SerializeAsString();
}

// -1: it was never made.
int number_of(Upward kind, const std::string& payload) {
  for (int i = 0; i < kMessages; ++i)
    if (payload == message(kind, i)) return i;
  return -1;
}

std::atomic<bool>& told(Story& story, Upward kind, int i) {
  return story.told[kind == Upward::kEvents ? 1 : 0][i];
}

Uplink::Options options_of(const TempDir& dir) {
  Uplink::Options out;
  out.directory = dir.file("spool");
  out.reconnect_spread = Duration(0);
  out.boot_id = "boot";
  out.next_seq = [] { return std::int64_t{1}; };
  return out;
}

// Messages over a broker that stops to answer, a connection that breaks, and one that comes again.
Task<void> live(const TempDir& dir, Story& story, int kill_at) {
  const Executor executor = co_await asio::this_coro::executor;
  const auto mark = [&] {
    if (story.marks++ == kill_at) ::kill(::getpid(), SIGKILL);
  };
  bool silent = false;
  Event speaks(executor);
  Uplink::Options options = options_of(dir);
  options.publish = [&](Upward kind, std::string payload) -> Task<void> {
    mark();
    if (silent) co_await speaks.wait();
    told(story, kind, number_of(kind, payload)) = true;
    mark();
  };
  Uplink uplink(executor, std::move(options));
  uplink.start();
  uplink.set_connected(true);
  for (int i = 0; i < kMessages; ++i) {
    if (i % 8 == 2) silent = true;
    if (i % 8 == 4) {
      uplink.set_connected(false);
      story.telemetry = i;
      mark();
    }
    if (i % 8 == 7) {
      silent = false;
      speaks.set();
      uplink.set_connected(true);
    }
    uplink.send(Upward::kEvents, message(Upward::kEvents, i));
    story.events = i + 1;
    mark();
    uplink.send(Upward::kTelemetry, message(Upward::kTelemetry, i));
    if (i % 8 >= 4 && i % 8 < 7) story.telemetry = i + 1;
    mark();
    co_await sleep_for(Duration(1));
    if (i % 8 == 7) speaks.reset();
  }
  co_await uplink.stop(Duration(1'000));
  story.telemetry = kMessages;
  mark();
}

// True when it was killed.
bool live_and_die(const TempDir& dir, Story& story, int kill_at, std::chrono::microseconds end) {
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() == parent)
      run_task([&]() -> Task<void> { co_await live(dir, story, kill_at); });
    ::_exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  if (end.count() > 0) {
    std::this_thread::sleep_for(end);
    ::kill(child, SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
  return WIFSIGNALED(status);
}

// The next one sends all that was promised, in order, each once and as it was.
void expect_kept(const TempDir& dir, Story& story) {
  std::vector<int> came[2];
  run_task([&]() -> Task<void> {
    Uplink::Options options = options_of(dir);
    options.publish = [&](Upward kind, std::string payload) -> Task<void> {
      const int number = number_of(kind, payload);
      EXPECT_GE(number, 0) << "was never made";
      came[kind == Upward::kEvents ? 1 : 0].push_back(number);
      co_return;
    };
    Uplink uplink(co_await asio::this_coro::executor, std::move(options));
    uplink.start();
    uplink.set_connected(true);
    for (int i = 0; i < 400 && uplink.waiting_records() > 0; ++i) co_await sleep_for(Duration(5));
    EXPECT_EQ(uplink.waiting_records(), 0);
    EXPECT_EQ(uplink.lost().events + uplink.lost().telemetry_points, 0);
    co_await uplink.stop(Duration(100));
  });
  for (const Upward kind : {Upward::kTelemetry, Upward::kEvents}) {
    const bool events = kind == Upward::kEvents;
    const std::vector<int>& numbers = came[events ? 1 : 0];
    EXPECT_TRUE(std::ranges::is_sorted(numbers));
    const std::set<int> once(numbers.begin(), numbers.end());
    EXPECT_EQ(once.size(), numbers.size());
    for (int i = 0; i < (events ? story.events : story.telemetry); ++i)
      EXPECT_TRUE(told(story, kind, i) || once.contains(i)) << (events ? "event " : "batch ") << i;
  }
}

class UplinkKilled : public ::testing::Test {
 protected:
  void SetUp() override { log::set_level(log::Level::kOff); }
  void TearDown() override { log::set_level(log::Level::kInfo); }
};

TEST_F(UplinkKilled, AtEveryStepItLosesNothingThatItPromised) {
  bool killed = true;
  int step = 0;
  for (; killed && !HasFailure(); ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    const TempDir dir;
    Story& story = *new_story();
    killed = live_and_die(dir, story, step, {});
    expect_kept(dir, story);
    ::munmap(&story, sizeof story);
  }
  EXPECT_GT(step, 4 * kMessages) << "the steps of a whole life";
}

TEST_F(UplinkKilled, AtAnyTimeItLosesNothingThatItPromised) {
  for (int round = 0; round < 25 && !HasFailure(); ++round) {
    const auto end = std::chrono::microseconds(1 + random_below(40'000));
    SCOPED_TRACE("after " + std::to_string(end.count()) + " us");
    const TempDir dir;
    Story& story = *new_story();
    live_and_die(dir, story, -1, end);
    expect_kept(dir, story);
    ::munmap(&story, sizeof story);
  }
}

}  // namespace
}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

#include "async/backoff.h"
#include "async/blocking.h"
#include "async/event.h"
#include "async/scope.h"
#include "testing/run_task.h"

namespace flock {
namespace {

using flock::testing::code_of_task;
using flock::testing::run_task;

Task<void> forever() {
  Event never(co_await asio::this_coro::executor);
  co_await never.wait();
}

TEST(Deadline, TellsATimeoutFromACancellation) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    EXPECT_EQ(co_await code_of_task(with_deadline(forever(), Duration(10), "waiting")),
              Code::kTimeout);
    Code seen = Code::kInternal;
    const auto waits = [&]() -> Task<void> {
      seen = co_await code_of_task(with_deadline(forever(), Duration(60'000), "waiting"));
    };
    TaskScope scope(executor);
    scope.spawn("waits", waits());
    co_await yield_now();
    scope.cancel();
    co_await scope.join();
    EXPECT_EQ(seen, Code::kCancelled);
  });
}

TEST(Deadline, PassesResultsAndErrorsThrough) {
  run_task([]() -> Task<void> {
    const auto seven = []() -> Task<int> { co_return 7; };
    EXPECT_EQ(co_await with_deadline(seven(), Duration(1000), "x"), 7);
    const auto fails = []() -> Task<void> {
      throw Error(Code::kConflict, "no");
      co_return;
    };
    EXPECT_EQ(co_await code_of_task(with_deadline(fails(), Duration(1000), "x")), Code::kConflict);
  });
}

TEST(TaskScope, HandsFailuresToItsOwnerAndKeepsCancellationsQuiet) {
  run_task([]() -> Task<void> {
    TaskScope scope(co_await asio::this_coro::executor);
    std::vector<std::string> failed;
    scope.on_failure([&](const std::string& name, std::exception_ptr) { failed.push_back(name); });
    const auto fails = []() -> Task<void> {
      throw Error(Code::kConflict, "no");
      co_return;
    };
    scope.spawn("bad", fails());
    scope.spawn("waits", forever());
    EXPECT_EQ(scope.size(), 2u);
    co_await yield_now();
    scope.cancel();
    co_await scope.join();
    EXPECT_EQ(failed, std::vector<std::string>{"bad"});
    scope.cancel();  // nothing to do: harmless
    scope.spawn("late", forever());
    co_await scope.join();
  });
}

TEST(TaskScope, FinishesItsTasksEvenWhenItsOwnerIsCancelled) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    Event may_end(executor);
    bool ended = false, joined = false;
    Code after = Code::kInternal;
    const auto stubborn = [&]() -> Task<void> {
      co_await may_end.wait_regardless();
      ended = true;
    };
    const auto owner = [&]() -> Task<void> {
      TaskScope tasks(executor);
      tasks.spawn("stubborn", stubborn());
      co_await code_of_task(sleep_for(Duration(60'000)));
      co_await asio::this_coro::throw_if_cancelled(false);
      co_await tasks.finish();
      joined = ended;
      const asio::cancellation_state state = co_await asio::this_coro::cancellation_state;
      if (state.cancelled() != asio::cancellation_type::none) after = Code::kCancelled;  // not lost
    };
    TaskScope scope(executor);
    scope.spawn("owner", owner());
    co_await yield_now();
    scope.cancel();
    co_await yield_now();
    EXPECT_FALSE(joined);
    may_end.set();
    co_await scope.join();
    EXPECT_TRUE(joined);
    EXPECT_EQ(after, Code::kCancelled);
  });
}

TEST(ForEach, DoesSoManyAtATimeAndEndsWithTheFirstError) {
  run_task([]() -> Task<void> {
    std::size_t busy = 0, most = 0, done = 0;
    const auto one = [&](std::size_t) -> Task<void> {
      most = std::max(most, ++busy);
      co_await yield_now();
      --busy;
      ++done;
    };
    co_await for_each(10, 3, one);
    EXPECT_EQ(done, 10u);
    EXPECT_EQ(most, 3u);
    co_await for_each(0, 3, one);
    EXPECT_EQ(done, 10u);

    std::vector<std::size_t> begun;
    const auto fails = [&](std::size_t i) -> Task<void> {
      begun.push_back(i);
      co_await yield_now();
      if (i == 1) throw Error(Code::kConflict, "no");
    };
    EXPECT_EQ(co_await code_of_task(for_each(100, 2, fails)), Code::kConflict);
    EXPECT_LE(begun.size(), 3u);
  });
}

TEST(ForEach, LeavesNothingBehindWhenItIsCancelled) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    int alive = 0;
    Code seen = Code::kInternal;
    const auto waits = [&](std::size_t) -> Task<void> {
      ++alive;
      co_await code_of_task(sleep_for(Duration(60'000)));
      --alive;
    };
    const auto owner = [&]() -> Task<void> { seen = co_await code_of_task(for_each(9, 4, waits)); };
    TaskScope scope(executor);
    scope.spawn("owner", owner());
    co_await yield_now();
    EXPECT_EQ(alive, 4);
    scope.cancel();
    co_await scope.join();
    EXPECT_EQ(alive, 0);
    EXPECT_EQ(seen, Code::kCancelled);
  });
}

// A long loop that never waits for anything else.
Task<void> spins() {
  for (;;) co_await yield_now();
}

TEST(Cancellation, IsAlwaysTheErrorOfTheHouse) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    const auto code_when_cancelled = [&](std::function<Task<void>()> body) -> Task<Code> {
      Code seen = Code::kInternal;
      const auto runs = [&]() -> Task<void> { seen = co_await code_of_task(body()); };
      TaskScope scope(executor);
      scope.spawn("task", runs());
      for (int i = 0; i < 3; ++i) co_await yield_now();
      scope.cancel();
      co_await scope.join();
      co_return seen;
    };
    EXPECT_EQ(co_await code_when_cancelled(forever), Code::kCancelled);
    EXPECT_EQ(co_await code_when_cancelled(spins), Code::kCancelled);
    const auto sleeps = [] { return sleep_for(Duration(60'000)); };
    EXPECT_EQ(co_await code_when_cancelled(sleeps), Code::kCancelled);
    const auto bounded = [] { return with_deadline(spins(), Duration(60'000), "spinning"); };
    EXPECT_EQ(co_await code_when_cancelled(bounded), Code::kCancelled);
    EXPECT_EQ(co_await code_of_task(with_deadline(spins(), Duration(5), "spinning")),
              Code::kTimeout);
  });
}

TEST(Deadline, TheInnerOneDoesNotHideTheOuterOne) {
  run_task([]() -> Task<void> {
    const auto inner = [] { return with_deadline(forever(), Duration(60'000), "inner"); };
    try {
      co_await with_deadline(inner(), Duration(5), "outer");
      ADD_FAILURE() << "nothing was thrown";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kTimeout);
      EXPECT_NE(error.message().find("outer"), std::string::npos) << error.message();
    }
  });
}

TEST(Deadline, WithoutLimitIsNoLimit) {
  run_task([]() -> Task<void> {
    EXPECT_EQ(co_await with_deadline(
                  []() -> Task<int> {
                    co_await sleep_for(Duration(5));
                    co_return 7;
                  }(),
                  Duration::max(), "x"),
              7);
    EXPECT_EQ(
        co_await code_of_task(with_deadline(sleep_for(Duration::max()), Duration(5), "sleeping")),
        Code::kTimeout);
  });
}

TEST(TaskScope, JoinWaitsForEveryTaskAndItsCleanup) {
  run_task([]() -> Task<void> {
    TaskScope scope(co_await asio::this_coro::executor);
    int ended = 0;
    const auto tidies = [&]() -> Task<void> {
      try {
        co_await forever();
      } catch (const Error&) {
      }
      ++ended;
    };
    for (int i = 0; i < 5; ++i) scope.spawn("tidies", tidies());
    co_await yield_now();
    EXPECT_EQ(ended, 0);
    scope.cancel();
    co_await scope.join();
    EXPECT_EQ(ended, 5);
    EXPECT_EQ(scope.size(), 0u);
    co_await scope.join();  // nobody left: at once
  });
}

TEST(TaskScope, TellsOfRealFailuresEvenWhileItStops) {
  run_task([]() -> Task<void> {
    TaskScope scope(co_await asio::this_coro::executor);
    std::vector<std::string> failed;
    scope.on_failure([&](const std::string& name, std::exception_ptr) { failed.push_back(name); });
    const auto breaks = []() -> Task<void> {
      try {
        co_await forever();
      } catch (const Error&) {
        throw std::runtime_error("broken");
      }
    };
    const auto waits_on = []() -> Task<void> {
      try {
        co_await forever();
      } catch (const Error&) {
      }
      co_await forever();  // ends at once: Asio's operation_aborted, which is no failure
    };
    scope.spawn("breaks", breaks());
    scope.spawn("waits on", waits_on());
    co_await yield_now();
    scope.cancel();
    co_await scope.join();
    EXPECT_EQ(failed, std::vector<std::string>{"breaks"});
  });
}

TEST(TaskScope, TakesTasksThatEndAtOnceEvenAfterItsCancellation) {
  run_task([]() -> Task<void> {
    TaskScope scope(co_await asio::this_coro::executor);
    int ran = 0;
    const auto quick = [&]() -> Task<void> {
      ++ran;
      co_return;
    };
    scope.spawn("quick", quick());
    scope.cancel();
    for (int i = 0; i < 3; ++i) scope.spawn("quick", quick());
    co_await scope.join();
    EXPECT_EQ(scope.size(), 0u);
    EXPECT_GE(ran, 1);
  });
}

TEST(Event, WakesEveryWaiterEvenWhenItIsResetAtOnce) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    Event event(executor);
    int woken = 0;
    const auto waits = [&]() -> Task<void> {
      co_await event.wait();
      ++woken;
    };
    TaskScope scope(executor);
    for (int i = 0; i < 3; ++i) scope.spawn("waits", waits());
    co_await yield_now();
    event.set();
    event.reset();
    co_await scope.join();
    EXPECT_EQ(woken, 3);
    EXPECT_FALSE(co_await event.wait_for(Duration(5)));
    event.set();
    EXPECT_TRUE(co_await event.wait_for(Duration(60'000)));
  });
}

TEST(BlockingPool, RunsElsewhereAndBringsBackResultsAndErrors) {
  run_task([]() -> Task<void> {
    BlockingPool pool(1, 1);
    const auto here = std::this_thread::get_id();
    std::function<bool()> elsewhere = [&] { return std::this_thread::get_id() != here; };
    EXPECT_TRUE(co_await pool.run<bool>(elsewhere));
    EXPECT_EQ(std::this_thread::get_id(), here);
    EXPECT_EQ(co_await code_of_task(pool.run_void([] { throw Error(Code::kNotFound, "no"); })),
              Code::kNotFound);
  });
}

// The job holds the thread until `go` is set.
struct Held {
  std::mutex mutex;
  std::condition_variable changed;
  bool go = false;
  void wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return go; });
  }
  void release() {
    const std::lock_guard lock(mutex);
    go = true;
    changed.notify_all();
  }
};

TEST(BlockingPool, RefusesWorkBeyondItsQueue) {
  run_task([]() -> Task<void> {
    BlockingPool pool(1, 2);
    Held held;
    TaskScope scope(co_await asio::this_coro::executor);
    for (int i = 0; i < 2; ++i) scope.spawn("job", pool.run_void([&] { held.wait(); }));
    co_await yield_now();
    EXPECT_EQ(co_await code_of_task(pool.run_void([] {})), Code::kUnavailable);
    held.release();
    co_await scope.join();
    co_await pool.run_void([] {});  // room again
  });
}

// The job cannot be stopped, but whoever asked for it must still hear that he was cancelled.
TEST(BlockingPool, ACancellationDuringAJobIsNotLost) {
  run_task([]() -> Task<void> {
    BlockingPool pool(1, 2);
    Held held;
    bool job_ended = false, ended_first = false;
    const auto works = [&]() -> Task<void> {
      try {
        co_await pool.run_void([&] {
          held.wait();
          job_ended = true;
        });
        co_await forever();
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Code::kCancelled);
        ended_first = job_ended;
      }
    };
    TaskScope scope(co_await asio::this_coro::executor);
    scope.spawn("works", works());
    co_await yield_now();
    scope.cancel();
    co_await yield_now();
    held.release();
    co_await scope.join();
    EXPECT_TRUE(ended_first);
  });
}

TEST(BlockingPool, ADeadlineThatPassesDuringAJobStillHolds) {
  run_task([]() -> Task<void> {
    BlockingPool pool(1, 2);
    Held held;
    const auto works = [&]() -> Task<void> {
      co_await pool.run_void([&] { held.wait(); });
      co_await forever();
    };
    TaskScope scope(co_await asio::this_coro::executor);
    const auto releases = [&]() -> Task<void> {
      co_await sleep_for(Duration(30));
      held.release();
    };
    scope.spawn("releases", releases());
    const SteadyPoint began = std::chrono::steady_clock::now();
    EXPECT_EQ(co_await code_of_task(with_deadline(works(), Duration(5), "work")), Code::kTimeout);
    EXPECT_LT(std::chrono::steady_clock::now() - began, Duration(3000));
    co_await scope.join();
  });
}

TEST(Backoff, StaysWithinItsGrowingBounds) {
  Backoff backoff(Duration(100), Duration(1000));
  for (const int bound : {100, 200, 400, 800, 1000, 1000}) {
    const Duration delay = backoff.next();
    EXPECT_GE(delay.count(), 0);
    EXPECT_LT(delay.count(), bound);
  }
  backoff.reset();
  EXPECT_LT(backoff.next().count(), 100);
}

// Devices that lost one server must not come back together.
TEST(Backoff, SpreadsACrowd) {
  std::set<Duration::rep> delays;
  for (int i = 0; i < 100; ++i)
    delays.insert(Backoff(Duration(60'000), Duration(60'000)).next().count());
  EXPECT_GT(delays.size(), 90u);
  EXPECT_LT(*delays.begin(), 20'000);
  EXPECT_GT(*delays.rbegin(), 40'000);
}

}  // namespace
}  // namespace flock

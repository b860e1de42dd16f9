// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

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
      after = co_await code_of_task(check_cancelled());  // the cancellation is not lost
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

}  // namespace
}  // namespace flock

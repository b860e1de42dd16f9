// SPDX-License-Identifier: Apache-2.0
#include "async/batcher.h"

#include <gtest/gtest.h>

#include "async/deadline.h"
#include "async/scope.h"
#include "testing/run_task.h"

namespace flock {
namespace {

using testing::code_of_task;
using testing::run_task;
using Doubler = Batcher<int, int>;

// Doubles numbers, each round trip when `open` says so.
struct Server {
  explicit Server(Executor executor, std::size_t at_once = 1)
      : open(executor),
        batcher(executor, 3, at_once, [this](auto numbers) { return answer(std::move(numbers)); }) {
  }

  Task<std::vector<int>> answer(std::vector<const int*> numbers) {
    rounds.push_back(numbers.size());
    co_await open.wait();
    if (broken) throw Error(Code::kUnavailable, "away");
    std::vector<int> doubled;
    for (const int* number : numbers) doubled.push_back(*number * 2);
    co_return doubled;
  }
  Task<void> ask(int number, std::string lane = "") {
    answers.push_back(co_await batcher.ask(std::move(lane), number));
  }

  Event open;
  Doubler batcher;
  std::vector<std::size_t> rounds;
  std::vector<int> answers;
  bool broken = false;
};

Task<void> turns(int count) {
  for (int i = 0; i < count; ++i) co_await yield_now();
}

TEST(Batcher, TakesTogetherWhatComesTogetherUpToItsLimit) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    Server server(executor);
    TaskScope scope(executor);
    for (int i = 0; i < 2; ++i) scope.spawn("early", server.ask(i));
    co_await turns(5);
    EXPECT_EQ(server.rounds, (std::vector<std::size_t>{2}));
    for (int i = 2; i < 6; ++i) scope.spawn("late", server.ask(i));
    co_await turns(5);
    EXPECT_EQ(server.rounds.size(), 1u) << "a round trip is under way";
    scope.spawn("elsewhere", server.ask(6, "another lane"));
    co_await turns(5);
    EXPECT_EQ(server.rounds, (std::vector<std::size_t>{2, 1}));
    server.open.set();
    co_await scope.join();
    EXPECT_EQ(server.rounds, (std::vector<std::size_t>{2, 1, 3, 1}));
    std::sort(server.answers.begin(), server.answers.end());
    EXPECT_EQ(server.answers, (std::vector<int>{0, 2, 4, 6, 8, 10, 12}));
  });
}

TEST(Batcher, HasAsManyRoundTripsUnderWayAsMayBe) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    Server server(executor, 2);
    TaskScope scope(executor);
    for (int i = 0; i < 10; ++i) scope.spawn("asks", server.ask(i));
    co_await turns(5);
    EXPECT_EQ(server.rounds, (std::vector<std::size_t>{3, 3})) << "two of three each, four wait";
    server.open.set();
    while (server.answers.size() < 10) co_await turns(1);
    EXPECT_EQ(server.rounds, (std::vector<std::size_t>{3, 3, 3, 1}));
    server.open.reset();
    scope.spawn("asks", server.ask(10));
    co_await turns(5);
    scope.spawn("does not wait for it", server.ask(11));
    co_await turns(5);
    EXPECT_EQ(server.rounds.size(), 6u);
    server.open.set();
    co_await scope.join();
  });
}

TEST(Batcher, AFailureReachesEverybodyWhoAskedAndNobodyElse) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    Server server(executor);
    server.broken = true;
    server.open.set();
    int failures = 0;
    const auto fails = [&]() -> Task<void> {
      EXPECT_EQ(co_await code_of_task(server.ask(1)), Code::kUnavailable);
      ++failures;
    };
    TaskScope scope(executor);
    for (int i = 0; i < 3; ++i) scope.spawn("fails", fails());
    co_await scope.join();
    EXPECT_EQ(failures, 3);
    server.broken = false;
    co_await server.ask(21);
    EXPECT_EQ(server.answers, (std::vector<int>{42}));
  });
}

// Whoever leads a round trip is no more than one of those who asked.
TEST(Batcher, WhoIsCancelledTakesNobodyWithHim) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    Server server(executor);
    TaskScope leader(executor), next(executor), others(executor);
    leader.spawn("leader", server.ask(1));
    others.spawn("with it", server.ask(2));
    co_await turns(5);
    next.spawn("waits", server.ask(3));
    others.spawn("waits too", server.ask(4));
    co_await turns(5);
    leader.cancel();
    next.cancel();
    co_await leader.join();
    co_await next.join();
    server.open.set();
    co_await others.join();
    std::sort(server.answers.begin(), server.answers.end());
    EXPECT_EQ(server.answers, (std::vector<int>{4, 8}));
    leader.cancel();  // already stopping: later spawns start cancelled
    leader.spawn("too late", server.ask(5));
    co_await leader.join();
    co_await server.ask(6);
    EXPECT_EQ(server.answers.back(), 12);
  });
}

}  // namespace
}  // namespace flock

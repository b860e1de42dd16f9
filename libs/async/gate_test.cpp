// SPDX-License-Identifier: Apache-2.0
#include "async/gate.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "async/loop.h"
#include "async/scope.h"
#include "testing/run_task.h"

namespace flock {
namespace {

using flock::testing::code_of_task;
using flock::testing::run_task;

struct Yard {
  explicit Yard(Executor executor) : gate(executor, 2, 2), scope(executor), open(executor) {}
  Task<void> visit(std::string name) {
    const Gate::Pass pass = co_await gate.enter();
    inside += name;
    co_await open.wait();
  }
  Gate gate;
  TaskScope scope;
  Event open;
  std::string inside;
};

TEST(Gate, LetsSomeInOthersWaitInOrderAndTheRestAreRefused) {
  run_task([]() -> Task<void> {
    Yard yard(co_await asio::this_coro::executor);
    for (const char* name : {"a", "b", "c", "d"}) yard.scope.spawn(name, yard.visit(name));
    co_await yield_now();
    EXPECT_EQ(yard.inside, "ab");
    EXPECT_EQ(co_await code_of_task(yard.visit("e")), Code::kUnavailable);
    yard.open.set();
    co_await yard.scope.join();
    EXPECT_EQ(yard.inside, "abcd");
    co_await yard.visit("f");
    EXPECT_EQ(yard.inside, "abcdf") << "every place is free again";
  });
}

TEST(Gate, APlaceIsNotLostWithWhoGivesUp) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    Yard yard(executor);
    TaskScope impatient(executor);
    for (const char* name : {"a", "b"}) yard.scope.spawn(name, yard.visit(name));
    for (const char* name : {"c", "d"}) impatient.spawn(name, yard.visit(name));
    co_await yield_now();
    impatient.cancel();
    co_await impatient.join();
    yard.scope.spawn("e", yard.visit("e"));  // there is room to wait again
    co_await yield_now();
    yard.open.set();
    co_await yard.scope.join();
    EXPECT_EQ(yard.inside, "abe");
    co_await yard.visit("f");
    co_await yard.visit("g");
  });
}

}  // namespace
}  // namespace flock

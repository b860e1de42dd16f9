// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <functional>

#include "async/deadline.h"
#include "async/loop.h"
#include "async/task.h"

namespace flock::testing {

// Runs a coroutine on a loop of its own; what it throws, or not ending in time, fails the test with
// the error's text.
inline void run_task(std::function<Task<void>()> body, Duration limit = Duration(5000)) {
  Loop loop;
  try {
    const auto bounded = [&]() -> Task<void> { co_await with_deadline(body(), limit, "the test"); };
    loop.run(bounded());
  } catch (const Error& error) {
    ADD_FAILURE() << to_string(error.code()) << ": " << error.describe();
  }
}

// The code of the flock::Error that `body` throws; fails the test when it throws none.
inline Code code_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "nothing was thrown";
  return Code::kInternal;
}

inline Task<Code> code_of_task(Task<void> task) {
  try {
    co_await std::move(task);
  } catch (const Error& error) {
    co_return error.code();
  }
  ADD_FAILURE() << "nothing was thrown";
  co_return Code::kInternal;
}

}  // namespace flock::testing

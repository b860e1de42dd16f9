// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "async/task.h"
#include "base/error.h"
#include "base/time.h"

namespace flock {
namespace detail {

// The timer of one with_deadline: cancels the child once, for one of two reasons that stay told
// apart.
class DeadlineTimer;
std::shared_ptr<DeadlineTimer> start_deadline(Executor executor, Duration limit);
asio::cancellation_slot child_slot(DeadlineTimer& timer);
void follow_parent(const std::shared_ptr<DeadlineTimer>& timer, asio::cancellation_state parent);
// Ends the timer; true when the limit had passed.
bool finish_deadline(DeadlineTimer& timer, asio::cancellation_state parent);
// What ended the task, with Asio's operation_aborted told as the house does: kCancelled.
[[noreturn]] void rethrow(const std::exception_ptr& failure);
[[noreturn]] void throw_timeout(const std::string& what, Duration limit);

}  // namespace detail

// Runs `task`; after `limit` it is cancelled and Error{kTimeout, what} is thrown. Cancelling the
// caller cancels `task` and gives kCancelled. The task has always ended when this returns.
template <class T>
Task<T> with_deadline(Task<T> task, Duration limit, std::string what) {
  const Executor executor = co_await asio::this_coro::executor;
  const asio::cancellation_state parent = co_await asio::this_coro::cancellation_state;
  const auto timer = detail::start_deadline(executor, limit);
  detail::follow_parent(timer, parent);
  std::exception_ptr failure;
  if constexpr (std::is_void_v<T>) {
    try {
      co_await asio::co_spawn(
          executor, std::move(task),
          asio::bind_cancellation_slot(detail::child_slot(*timer), asio::use_awaitable));
    } catch (...) {
      failure = std::current_exception();
    }
    const bool timed_out = detail::finish_deadline(*timer, parent);
    if (failure && timed_out) detail::throw_timeout(what, limit);
    if (failure) detail::rethrow(failure);
  } else {
    std::optional<T> result;
    try {
      result.emplace(co_await asio::co_spawn(
          executor, std::move(task),
          asio::bind_cancellation_slot(detail::child_slot(*timer), asio::use_awaitable)));
    } catch (...) {
      failure = std::current_exception();
    }
    const bool timed_out = detail::finish_deadline(*timer, parent);
    if (failure && timed_out) detail::throw_timeout(what, limit);
    if (failure) detail::rethrow(failure);
    co_return std::move(*result);
  }
}

}  // namespace flock

// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <list>

#include "async/backoff.h"
#include "async/deadline.h"
#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/log.h"
#include "base/random.h"

namespace flock {
namespace {

Error cancelled() { return Error(Code::kCancelled, "cancelled"); }

// Now + `duration`; what a clock cannot hold (Duration::max() above all) means "never".
SteadyPoint point_after(Duration duration) {
  constexpr auto kLong = std::chrono::hours(24 * 365 * 100);
  return duration >= kLong ? SteadyPoint::max() : std::chrono::steady_clock::now() + duration;
}

}  // namespace

// --- Loop
// -----------------------------------------------------------------------------------------

struct Loop::Impl {
  asio::io_context context{1};
};

Loop::Loop() : impl_(std::make_unique<Impl>()) {}
Loop::~Loop() = default;
Executor Loop::executor() { return impl_->context.get_executor(); }

void Loop::run() {
  impl_->context.restart();
  impl_->context.run();
}

void Loop::stop() { impl_->context.stop(); }

void Loop::run(Task<void> task) {
  std::exception_ptr failure;
  bool done = false;
  asio::co_spawn(impl_->context, std::move(task), [&](std::exception_ptr error) {
    failure = error;
    done = true;
    impl_->context.stop();
  });
  run();
  if (failure) std::rethrow_exception(failure);
  if (!done) throw Error(Code::kCancelled, "the loop stopped before its task ended");
}

Task<void> sleep_for(Duration duration) {
  asio::steady_timer timer(co_await asio::this_coro::executor);
  timer.expires_at(point_after(duration));
  try {
    const auto [error] = co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
    if (!error) co_return;
  } catch (const boost::system::system_error&) {  // cancelled before it could wait
  }
  throw cancelled();
}

Task<void> yield_now() {
  co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
  const asio::cancellation_state state = co_await asio::this_coro::cancellation_state;
  if (state.cancelled() != asio::cancellation_type::none) throw cancelled();
}

// --- TaskScope
// ------------------------------------------------------------------------------------

struct TaskScope::Impl {
  struct Entry {
    std::string name;
    asio::cancellation_signal signal;
  };

  explicit Impl(Executor e) : executor(std::move(e)), idle(executor) { idle.set(); }

  void ended(std::list<Entry>::iterator entry, std::exception_ptr failure) {
    const std::string name = entry->name;
    entries.erase(entry);
    if (failure) report(name, failure);
    if (entries.empty()) idle.set();
  }

  void report(const std::string& name, std::exception_ptr failure) {
    try {
      std::rethrow_exception(failure);
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) return;
      if (handler) return handler(name, failure);
      log::error("background task failed", error, {{"task", name}});
    } catch (const std::exception& error) {
      // How Asio ends every wait of a task that went on after its cancellation.
      const auto* aborted = dynamic_cast<const boost::system::system_error*>(&error);
      if (aborted != nullptr && aborted->code() == asio::error::operation_aborted) return;
      if (handler) return handler(name, failure);
      log::error("background task failed", {{"task", name}, {"error", error.what()}});
    }
  }

  Executor executor;
  Event idle;
  std::list<Entry> entries;
  std::function<void(const std::string&, std::exception_ptr)> handler;
  bool stopping = false;
};

TaskScope::TaskScope(Executor executor) : impl_(std::make_shared<Impl>(std::move(executor))) {}
TaskScope::~TaskScope() = default;

void TaskScope::on_failure(std::function<void(const std::string&, std::exception_ptr)> handler) {
  impl_->handler = std::move(handler);
}

void TaskScope::spawn(std::string name, Task<void> task) {
  impl_->idle.reset();
  const auto entry = impl_->entries.emplace(impl_->entries.end());
  entry->name = std::move(name);
  asio::co_spawn(impl_->executor, std::move(task),
                 asio::bind_cancellation_slot(entry->signal.slot(),
                                              [impl = impl_, entry](std::exception_ptr failure) {
                                                impl->ended(entry, failure);
                                              }));
  if (impl_->stopping) entry->signal.emit(asio::cancellation_type::terminal);
}

void TaskScope::cancel() {
  impl_->stopping = true;
  // A cancelled task can end at once and leave the list.
  for (auto at = impl_->entries.begin(); at != impl_->entries.end();) {
    const auto current = at++;
    current->signal.emit(asio::cancellation_type::terminal);
  }
}

Task<void> TaskScope::join() { co_await impl_->idle.wait(); }
Task<void> TaskScope::finish() {
  cancel();
  co_await impl_->idle.wait_regardless();
}
std::size_t TaskScope::size() const noexcept { return impl_->entries.size(); }

Task<void> run_all(std::vector<Task<void>> tasks) {
  if (tasks.empty()) co_return;
  TaskScope scope(co_await asio::this_coro::executor);
  std::exception_ptr failure, cancelled;
  scope.on_failure([&](const std::string&, std::exception_ptr error) {
    if (!failure) failure = error;
  });
  for (Task<void>& task : tasks) scope.spawn("one of many", std::move(task));
  try {
    co_await scope.join();
  } catch (...) {
    cancelled = std::current_exception();
  }
  if (cancelled) {
    co_await asio::this_coro::throw_if_cancelled(false);
    co_await scope.finish();
    co_await asio::this_coro::throw_if_cancelled(true);
    std::rethrow_exception(cancelled);
  }
  if (failure) std::rethrow_exception(failure);
}

Task<void> for_each(std::size_t count, std::size_t at_once,
                    std::function<Task<void>(std::size_t)> work) {
  std::size_t next = 0;
  bool failed = false;
  const auto worker = [&]() -> Task<void> {
    while (next < count && !failed) {
      try {
        co_await work(next++);
      } catch (...) {
        failed = true;
        throw;
      }
    }
  };
  std::vector<Task<void>> workers;
  for (std::size_t i = 0; i < std::min(count, at_once); ++i) workers.push_back(worker());
  co_await run_all(std::move(workers));
}

// --- Deadline
// -------------------------------------------------------------------------------------

namespace detail {

class DeadlineTimer {
 public:
  explicit DeadlineTimer(const Executor& executor) : timer(executor) {}
  asio::steady_timer timer;
  asio::cancellation_signal signal;
  bool timed_out = false;
  bool parent_cancelled = false;
  bool finished = false;
};

std::shared_ptr<DeadlineTimer> start_deadline(Executor executor, Duration limit) {
  auto state = std::make_shared<DeadlineTimer>(executor);
  state->timer.expires_at(point_after(limit));
  state->timer.async_wait([state](const boost::system::error_code& error) {
    if (error || state->finished || state->parent_cancelled) return;
    state->timed_out = true;
    state->signal.emit(asio::cancellation_type::terminal);
  });
  return state;
}

asio::cancellation_slot child_slot(DeadlineTimer& timer) { return timer.signal.slot(); }

void follow_parent(const std::shared_ptr<DeadlineTimer>& timer, asio::cancellation_state parent) {
  if (parent.cancelled() != asio::cancellation_type::none) {
    timer->timer.cancel();
    throw cancelled();
  }
  asio::cancellation_slot slot = parent.slot();
  if (!slot.is_connected()) return;
  slot.assign([timer](asio::cancellation_type type) {
    if (timer->finished || timer->timed_out) return;
    timer->parent_cancelled = true;
    timer->signal.emit(type);
  });
}

bool finish_deadline(DeadlineTimer& timer, asio::cancellation_state parent) {
  timer.finished = true;
  timer.timer.cancel();
  if (parent.slot().is_connected()) parent.slot().clear();
  return timer.timed_out;
}

void rethrow(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const boost::system::system_error& error) {
    if (error.code() == asio::error::operation_aborted) throw cancelled();
    throw;
  }
}

void throw_timeout(const std::string& what, Duration limit) {
  throw Error(Code::kTimeout, what + " took longer than " + to_string(limit));
}

}  // namespace detail

// --- Event
// ----------------------------------------------------------------------------------------

// Each waiter has a timer of its own: a timer is the one thing in Asio that many can wait for and
// that cancellation reaches without further code.
struct Event::Impl {
  explicit Impl(Executor e) : executor(std::move(e)) {}
  Executor executor;
  std::list<asio::steady_timer> waiters;
  bool set = false;
};

Event::Event(Executor executor) : impl_(std::make_shared<Impl>(std::move(executor))) {}
Event::~Event() = default;

void Event::set() {
  impl_->set = true;
  for (asio::steady_timer& waiter : impl_->waiters) waiter.cancel();
}

void Event::reset() noexcept { impl_->set = false; }
bool Event::is_set() const noexcept { return impl_->set; }

Task<void> Event::wait() {
  const bool set = co_await wait_for(Duration::max());
  FLOCK_ASSERT(set);
}

// Asio's way to shut cancellation off (a filter on the coroutine's state) forgets a cancellation
// that came before and drops one that comes meanwhile; so it is let in and looked at afterwards.
Task<void> Event::wait_regardless() {
  const std::shared_ptr<Impl> impl = impl_;
  const bool throws = co_await asio::this_coro::throw_if_cancelled();
  co_await asio::this_coro::throw_if_cancelled(false);
  while (!impl->set) {
    try {
      co_await wait();
    } catch (const Error& error) {
      if (error.code() != Code::kCancelled) throw;
    }
  }
  co_await asio::this_coro::throw_if_cancelled(throws);
}

Task<bool> Event::wait_for(Duration limit) {
  const std::shared_ptr<Impl> impl = impl_;
  if (impl->set) co_return true;
  const auto waiter = impl->waiters.emplace(impl->waiters.end(), impl->executor);
  waiter->expires_at(point_after(limit));
  // Every wake-up is an aborted wait of a timer: as a value, for exceptions cost microseconds.
  bool expired = false;
  try {
    const auto [error] = co_await waiter->async_wait(asio::as_tuple(asio::use_awaitable));
    expired = !error;
  } catch (const boost::system::system_error&) {  // cancelled before it could wait
  }
  impl->waiters.erase(waiter);
  const asio::cancellation_state state = co_await asio::this_coro::cancellation_state;
  const bool woken = state.cancelled() == asio::cancellation_type::none;
  if (expired) co_return impl->set;
  // Woken by set(), even if somebody reset the flag before this coroutine had its turn.
  if (!woken) throw cancelled();
  co_return true;
}

// --- Backoff
// --------------------------------------------------------------------------------------

Duration Backoff::next() {
  const auto bound = static_cast<std::uint64_t>(std::max<Duration::rep>(1, ceiling_.count()));
  const Duration delay(static_cast<Duration::rep>(random_below(bound)));
  ceiling_ = std::min(max_, ceiling_ * 2);
  return delay;
}

}  // namespace flock

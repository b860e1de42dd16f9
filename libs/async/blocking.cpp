// SPDX-License-Identifier: Apache-2.0
#include "async/blocking.h"

#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <exception>
#include <mutex>

#include "async/event.h"
#include "base/error.h"

namespace flock {

struct BlockingPool::Impl {
  Impl(std::size_t count, std::size_t limit) : threads(count), queue_limit(limit) {}

  asio::thread_pool& pool() {
    std::call_once(once, [this] { started.emplace(threads); });
    return *started;
  }

  std::size_t threads, queue_limit;
  std::atomic<std::size_t> queued = 0;
  std::once_flag once;
  std::optional<asio::thread_pool> started;
};

BlockingPool::BlockingPool(std::size_t threads, std::size_t queue_limit)
    : impl_(std::make_unique<Impl>(threads, queue_limit)) {}

BlockingPool::~BlockingPool() {
  if (impl_->started) impl_->started->join();
}

BlockingPool& BlockingPool::shared() {
  static BlockingPool pool;
  return pool;
}

Task<void> BlockingPool::run_void(std::function<void()> job) {
  if (impl_->queued.fetch_add(1) >= impl_->queue_limit) {
    impl_->queued.fetch_sub(1);
    throw Error(Code::kUnavailable, "too much blocking work is waiting");
  }
  const Executor loop = co_await asio::this_coro::executor;
  // `job` and `failure` live in this frame, so even a cancelled caller stays until the thread is
  // done with them.
  const auto done = std::make_shared<Event>(loop);
  std::exception_ptr failure;
  asio::post(impl_->pool(), [&, done, loop] {
    try {
      job();
    } catch (...) {
      failure = std::current_exception();
    }
    impl_->queued.fetch_sub(1);
    asio::post(loop, [done] { done->set(); });
  });
  co_await done->wait_regardless();
  const asio::cancellation_state state = co_await asio::this_coro::cancellation_state;
  if (state.cancelled() != asio::cancellation_type::none)
    throw Error(Code::kCancelled, "cancelled");
  if (failure) std::rethrow_exception(failure);
}

}  // namespace flock

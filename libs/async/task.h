// SPDX-License-Identifier: Apache-2.0
// Task<T>: what a coroutine of Flock returns. Tasks run on the one loop of their target; nothing is
// shared across loops.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

namespace flock {

namespace asio = boost::asio;

template <class T = void>
using Task = asio::awaitable<T>;

using Executor = asio::any_io_executor;

}  // namespace flock

// SPDX-License-Identifier: Apache-2.0
// Private to this room: what TCP, TLS and unix streams share. Included by .cpp files only.
#pragma once

#include <boost/asio/steady_timer.hpp>
#include <boost/system/error_code.hpp>
#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "net/stream.h"

namespace flock::net {

// One timer a stream, armed lazily: moving the limit forward costs a store, not a system call. When
// it fires early it sleeps for the rest; when it fires in time it breaks the connection.
class Watchdog : public std::enable_shared_from_this<Watchdog> {
 public:
  Watchdog(const Executor& executor, std::function<void()> expired)
      : timer_(executor), expired_(std::move(expired)) {}

  void expires_after(Duration limit) {
    fired_ = false;
    if (limit == Duration::max()) {
      limit_ = SteadyPoint::max();
      return;
    }
    limit_ = std::chrono::steady_clock::now() + limit;
    if (!armed_ || limit_ < wakes_at_) arm();
  }
  bool fired() const { return fired_; }
  void stop() {
    expired_ = nullptr;
    limit_ = SteadyPoint::max();
    timer_.cancel();
  }

 private:
  void arm() {
    armed_ = true;
    wakes_at_ = limit_;
    timer_.expires_at(limit_);
    timer_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
      if (error) return;  // armed anew or stopped
      self->armed_ = false;
      if (self->limit_ == SteadyPoint::max()) return;
      if (self->limit_ > std::chrono::steady_clock::now()) return self->arm();
      self->fired_ = true;
      if (self->expired_) self->expired_();
    });
  }

  asio::steady_timer timer_;
  std::function<void()> expired_;
  SteadyPoint limit_ = SteadyPoint::max(), wakes_at_ = SteadyPoint::max();
  bool armed_ = false, fired_ = false;
};

// How an error code of Asio leaves this room.
Error translate(const boost::system::error_code& code, const std::string& peer, bool timed_out);

}  // namespace flock::net

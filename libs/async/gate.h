// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <exception>
#include <utility>

#include "async/event.h"
#include "base/error.h"

namespace flock {

// Lets so many in at once; so many more wait for their turn, in order. The others are refused at
// once: who would wait for long has given up before it is his turn, and what is done for him then
// is in vain. Outlives its passes; one loop only.
class Gate {
 public:
  Gate(Executor executor, std::size_t at_once, std::size_t waiting)
      : executor_(std::move(executor)), free_(at_once), waiting_most_(waiting) {}
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  // Leaves the gate at its end.
  class Pass {
   public:
    explicit Pass(Gate& gate) : gate_(&gate) {}
    ~Pass() {
      if (gate_ != nullptr) gate_->leave();
    }
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Pass& operator=(Pass&&) = delete;

   private:
    Gate* gate_;
  };
  // Throws Error{kUnavailable} when as many as may wait already.
  Task<Pass> enter() {
    if (free_ > 0) {
      --free_;
      co_return Pass(*this);
    }
    if (queue_.size() >= waiting_most_)
      throw Error(Code::kUnavailable, "too many ask for this at once").hint("try again later");
    Turn turn(executor_);
    queue_.push_back(&turn);
    std::exception_ptr cancelled;
    try {
      co_await turn.event.wait();
    } catch (...) {
      cancelled = std::current_exception();
    }
    if (!cancelled) co_return Pass(*this);
    if (turn.granted)
      leave();
    else
      std::erase(queue_, &turn);
    std::rethrow_exception(cancelled);
  }

 private:
  struct Turn {
    explicit Turn(Executor executor) : event(std::move(executor)) {}
    Event event;
    bool granted = false;
  };
  // Whose turn it is takes the place over.
  void leave() {
    if (queue_.empty()) {
      ++free_;
      return;
    }
    Turn& next = *queue_.front();
    queue_.pop_front();
    next.granted = true;
    next.event.set();
  }

  Executor executor_;
  std::size_t free_, waiting_most_;
  std::deque<Turn*> queue_;
};

}  // namespace flock

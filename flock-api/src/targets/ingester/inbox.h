// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <utility>
#include <vector>

#include "async/event.h"
#include "mqtt/bus.h"

namespace flock::targets::ingester {

// Deliveries that wait to be worked on, bounded in bytes. What is over the limit is let go without
// an acknowledgement: the broker sends it again after the next connection.
class Inbox {
 public:
  Inbox(Executor executor, std::size_t limit_bytes)
      : arrival_(std::move(executor)), limit_bytes_(limit_bytes) {}

  void push(mqtt::Delivery delivery) {
    const std::size_t bytes = size_of(delivery);
    if (bytes_ + bytes > limit_bytes_) {
      let_go_ = true;
      return;
    }
    bytes_ += bytes;
    queue_.push_back(std::move(delivery));
    if (!arrival_.is_set()) arrival_.set();
  }
  // Ends a wait without a delivery.
  void wake() { arrival_.set(); }
  // Moves at most `count` of them to the end of `batch`.
  void pop(std::vector<mqtt::Delivery>& batch, std::size_t count) {
    for (; count > 0 && !queue_.empty(); --count) {
      batch.push_back(std::move(queue_.front()));
      queue_.pop_front();
    }
    if (queue_.empty()) arrival_.reset();
  }
  // What a delivery counts for until it is finished().
  static std::size_t size_of(const mqtt::Delivery& delivery) {
    return delivery.message.topic.size() + delivery.message.payload.size() + sizeof delivery;
  }
  void hold(std::size_t bytes) { bytes_ += bytes; }
  void finished(std::size_t bytes) { bytes_ -= std::min(bytes_, bytes); }
  std::size_t size() const noexcept { return queue_.size(); }
  // Nothing waits, and everything taken is finished.
  bool idle() const noexcept { return bytes_ == 0; }
  // True once, when something was let go and there is room again.
  bool wants_more() {
    if (!let_go_ || bytes_ > limit_bytes_ / 2) return false;
    return std::exchange(let_go_, false);
  }
  Task<void> wait() { co_await arrival_.wait(); }
  Task<bool> wait_for(Duration limit) { co_return co_await arrival_.wait_for(limit); }

 private:
  Event arrival_;
  std::deque<mqtt::Delivery> queue_;
  std::size_t limit_bytes_, bytes_ = 0;
  bool let_go_ = false;
};

}  // namespace flock::targets::ingester

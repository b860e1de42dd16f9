// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "async/event.h"
#include "async/loop.h"
#include "base/error.h"

namespace flock {

// Puts what several coroutines ask at the same time into one round trip: what comes in one turn of
// the loop, or while as many round trips of the same lane are under way as may be, goes together
// into the next. So nobody is answered with what was read before he asked, and an idle lane answers
// at once. Lanes do not wait for each other.
template <class Question, class Answer>
class Batcher {
 public:
  // As many answers as questions, in their order; what it throws is thrown to everybody who asked.
  // The questions live until it ends.
  using Ask = std::function<Task<std::vector<Answer>>(std::vector<const Question*>)>;

  // `most`: questions of one round trip; `at_once`: round trips of one lane.
  Batcher(Executor executor, std::size_t most, std::size_t at_once, Ask ask)
      : executor_(std::move(executor)), most_(most), at_once_(at_once), ask_(std::move(ask)) {}

  Task<Answer> ask(std::string lane, Question question) {
    const auto me = std::make_shared<Waiter>(executor_, std::move(question));
    Lane& mine = lanes_[lane];
    mine.waiting.push_back(me);
    if (!mine.gathers && mine.under_way < at_once_) mine.gathers = me->leads = true;
    try {
      if (me->leads)
        co_await yield_now();
      else
        co_await me->woken.wait_for(Duration::max());  // one frame less than wait()
    } catch (...) {
      give_up(lane, me);
      throw;
    }
    if (me->leads) co_await lead(lane);
    if (me->failure) std::rethrow_exception(me->failure);
    co_return std::move(*me->answer);
  }

 private:
  struct Waiter {
    Waiter(Executor executor, Question q) : question(std::move(q)), woken(std::move(executor)) {}
    const Question question;
    Event woken;
    bool leads = false;  // asks for all that wait with it
    std::optional<Answer> answer;
    std::exception_ptr failure;
  };
  using WaiterPtr = std::shared_ptr<Waiter>;
  struct Lane {
    bool gathers = false;  // a leader stands in front until it asks
    std::size_t under_way = 0;
    std::deque<WaiterPtr> waiting;
  };

  Task<void> lead(std::string name) {
    const asio::cancellation_state state = co_await asio::this_coro::cancellation_state;
    Lane& lane = lanes_[name];  // stays while a round trip of it is under way
    lane.gathers = false;
    ++lane.under_way;
    std::deque<WaiterPtr>& waiting = lane.waiting;
    const auto end = waiting.begin() + static_cast<std::ptrdiff_t>(std::min(most_, waiting.size()));
    std::vector<WaiterPtr> together(waiting.begin(), end);
    waiting.erase(waiting.begin(), end);
    hand_over(name);  // those that are too many for this one
    std::vector<const Question*> questions;
    for (const WaiterPtr& waiter : together) questions.push_back(&waiter->question);
    std::vector<Answer> answers;
    std::exception_ptr failure;
    try {
      answers = co_await ask_(std::move(questions));
      FLOCK_ASSERT(answers.size() == together.size());
    } catch (...) {
      failure = std::current_exception();
    }
    --lane.under_way;
    // Only the leader was cancelled: the others ask again, in their order.
    if (failure && state.cancelled() != asio::cancellation_type::none) {
      const auto behind = waiting.begin() + (lane.gathers ? 1 : 0);
      waiting.insert(behind, together.begin() + 1, together.end());
      together.resize(1);
    }
    hand_over(name);  // first: the next round trip is under way while these answers are used
    for (std::size_t i = 0; i < together.size(); ++i) {
      together[i]->failure = failure;
      if (!failure) together[i]->answer.emplace(std::move(answers[i]));
      together[i]->woken.set();
    }
  }

  void give_up(const std::string& name, const WaiterPtr& me) {
    const auto lane = lanes_.find(name);
    if (lane == lanes_.end()) return;  // it was answered in the same moment
    std::erase(lane->second.waiting, me);
    if (!me->leads) return;
    lane->second.gathers = false;
    hand_over(name);
  }

  // To whoever waits, unless somebody gathers already or as many are under way as may be.
  void hand_over(const std::string& name) {
    const auto found = lanes_.find(name);
    Lane& lane = found->second;
    if (lane.gathers || lane.under_way == at_once_) return;
    if (!lane.waiting.empty()) {
      lane.gathers = true;
      lane.waiting.front()->leads = true;
      lane.waiting.front()->woken.set();
    } else if (lane.under_way == 0) {
      lanes_.erase(found);
    }
  }

  Executor executor_;
  std::size_t most_, at_once_;
  Ask ask_;
  std::unordered_map<std::string, Lane> lanes_;  // those with somebody in them
};

}  // namespace flock

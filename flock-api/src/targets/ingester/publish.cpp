// SPDX-License-Identifier: Apache-2.0
#include "targets/ingester/publish.h"

#include <exception>

#include "async/scope.h"

namespace flock::targets::ingester {

mqtt::Message internal_message(const char* topic, std::string payload) {
  mqtt::Message message;
  message.topic = std::string("flock/internal/v1/") + topic;
  message.payload = std::move(payload);
  return message;
}

Task<void> publish_all(mqtt::Bus& bus, std::vector<mqtt::Message> messages) {
  std::vector<Task<void>> tasks;
  tasks.reserve(messages.size());
  for (mqtt::Message& message : messages) tasks.push_back(bus.publish(std::move(message)));
  co_await run_all(std::move(tasks));
}

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

}  // namespace flock::targets::ingester

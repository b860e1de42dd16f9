// SPDX-License-Identifier: Apache-2.0
#include "scale_crowd.h"

#include <charconv>

#include "async/loop.h"
#include "keep_alive.h"

namespace flock::bench {
namespace {

constexpr std::size_t kLinks = 4, kInFlight = 512;
constexpr std::string_view kMark = "t=";

SteadyPoint steady_now() { return std::chrono::steady_clock::now(); }

}  // namespace

std::string time_mark(SteadyPoint at) {
  return std::string(kMark) + std::to_string(at.time_since_epoch().count()) + ";";
}

std::int64_t time_in(std::string_view text) {
  std::int64_t ns = 0;
  const std::size_t at = text.find(kMark);
  if (at != std::string_view::npos)
    std::from_chars(text.data() + at + kMark.size(), text.data() + text.size(), ns);
  return ns;
}

// What one send() is about.
struct Crowd::Course {
  bool arriving = false;
  Mix mix;
  double rate = 0;
  SteadyPoint began = steady_now(), until = SteadyPoint::max();
  std::int64_t number = 0, most = INT64_MAX;
  Sent sent;
};

Crowd::Crowd(Executor executor, mqtt::ClientOptions link, std::vector<std::string> ids)
    : executor_(executor),
      ids_(std::move(ids)),
      errors_(ids_.size()),
      scope_(executor),
      report_(keep_alive("")),
      seq_(to_unix_ms(system_clock().now())) {
  for (const auto& service : report_.services()) desired_.add_services()->set_name(service.name());
  for (std::size_t i = 0; i < kLinks; ++i) {
    mqtt::ClientOptions options = link;
    options.client_id += "-" + std::to_string(i);
    links_.push_back(std::make_unique<mqtt::Client>(executor, std::move(options)));
  }
}

Task<void> Crowd::open() {
  for (const auto& link : links_) {
    scope_.spawn("link", link->run());
    co_await link->wait_connected();
  }
}

Task<void> Crowd::close() {
  for (const auto& link : links_) co_await link->disconnect(Duration(1000));
  scope_.cancel();
  co_await scope_.join();
}

Task<Sent> Crowd::arrive() {
  Course course;
  course.arriving = true;
  course.most = 2 * static_cast<std::int64_t>(ids_.size());
  co_return co_await run(course);
}

Task<Sent> Crowd::send(Mix mix, double rate, Duration time) {
  Course course;
  course.mix = mix;
  course.rate = rate;
  course.until = course.began + time;
  co_return co_await run(course);
}

Task<Sent> Crowd::run(Course& course) {
  TaskScope workers(executor_);
  for (std::size_t i = 0; i < kInFlight; ++i)
    workers.spawn("worker", work(course, i % links_.size()));
  co_await workers.join();
  course.sent.seconds = std::chrono::duration<double>(steady_now() - course.began).count();
  co_return course.sent;
}

Task<void> Crowd::work(Course& course, std::size_t link) {
  while (course.number < course.most) {
    // When a message is due does not depend on how long those before it took.
    SteadyPoint due = steady_now();
    if (course.rate > 0)
      due = course.began + std::chrono::nanoseconds(static_cast<std::int64_t>(
                               1e9 * static_cast<double>(course.number) / course.rate));
    if (due >= course.until) co_return;
    mqtt::Message message = next(course, due);
    const auto wait = std::chrono::duration_cast<Duration>(due - steady_now());
    if (wait.count() > 0) co_await sleep_for(wait);
    while (hold) co_await sleep_for(Duration(5));
    co_await links_[link]->publish(std::move(message));
    ++sent_;
    ++course.sent.messages;
  }
}

mqtt::Message Crowd::next(Course& course, SteadyPoint due) {
  const std::int64_t number = course.number++;
  mqtt::Message message;
  const auto to = [&](const char* leaf, std::string payload) {
    message.topic = "devices/" + ids_[at_] + "/" + leaf;
    message.payload = std::move(payload);
  };
  if (course.arriving && number % 2 == 0) {
    device::v1::DeviceEvent hello;
    hello.set_boot_id(ids_[at_]);
    hello.set_seq(++seq_);
    hello.set_at_ms(to_unix_ms(system_clock().now()));
    hello.set_kind(device::v1::DeviceEvent::ONLINE);
    to("events", hello.SerializeAsString());
    return message;
  }
  // Scattered, or a device would send the same kind for ever.
  const auto scattered = static_cast<std::uint64_t>(number) * 0x9E3779B97F4A7C15ULL >> 33;
  const auto slot =
      course.arriving
          ? 0
          : static_cast<int>(scattered % static_cast<std::uint64_t>(course.mix.total()));
  if (slot < course.mix.changes) errors_[at_] = time_mark(due);
  if (course.arriving || slot < course.mix.changes + course.mix.keep_alives) {
    to("state", state(at_));
  } else {
    to("telemetry", telemetry(at_));
    ++course.sent.telemetry;
  }
  at_ = (at_ + 1) % ids_.size();
  return message;
}

std::string Crowd::state(std::size_t device) {
  report_.set_boot_id(ids_[device]);
  report_.set_error(errors_[device]);
  report_.set_seq(++seq_);
  report_.set_at_ms(to_unix_ms(system_clock().now()));
  last_ = {ids_[device], seq_, sent_};
  return report_.SerializeAsString();
}

std::string Crowd::telemetry(std::size_t device) {
  device::v1::TelemetryBatch batch;
  batch.set_boot_id(ids_[device]);
  batch.set_seq(++seq_);
  *batch.add_points() =
      agent::sim::telemetry(behaviour_, static_cast<int>(device), point_++, desired_);
  batch.mutable_points(0)->set_at_ms(to_unix_ms(system_clock().now()));
  return batch.SerializeAsString();
}

}  // namespace flock::bench

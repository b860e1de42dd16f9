// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "async/scope.h"
#include "flock/device/v1/device.pb.h"
#include "mqtt/client.h"
#include "sim/behaviour.h"

namespace flock::bench {

// Of so many messages in a row, how many are of which kind.
struct Mix {
  int keep_alives = 0, changes = 0, telemetry = 0;
  int total() const { return keep_alives + changes + telemetry; }
};

// A report that was sent, to be looked for in the live state.
struct Mark {
  std::string device;
  std::int64_t seq = 0, sent = 0;  // messages before it
};

struct Sent {
  std::int64_t messages = 0, telemetry = 0;
  double seconds = 0;
};

// A change carries the moment of its sending in its error text: "t=<ns of the steady clock>;".
std::string time_mark(SteadyPoint at);
// The moment in ns, or 0 when there is none in `text`.
std::int64_t time_in(std::string_view text);

// Devices without connections of their own: what they would send goes over a few connections of a
// client that may publish for all of them.
class Crowd {
 public:
  // `link`: its client id is a prefix.
  Crowd(Executor executor, mqtt::ClientOptions link, std::vector<std::string> ids);
  Task<void> open();
  Task<void> close();
  // Everybody says hello and reports for the first time. As fast as the broker takes it.
  Task<Sent> arrive();
  // One device after the other, `rate` messages a second, 0: as fast as the broker takes them.
  Task<Sent> send(Mix mix, double rate, Duration time);
  // While true send() waits.
  bool hold = false;
  // Of all sent so far, for who decides about `hold`.
  const Mark& last_report() const noexcept { return last_; }
  std::int64_t sent() const noexcept { return sent_; }

 private:
  struct Course;
  Task<void> work(Course& course, std::size_t link);
  Task<Sent> run(Course& course);
  mqtt::Message next(Course& course, SteadyPoint due);
  std::string state(std::size_t device);
  std::string telemetry(std::size_t device);

  Executor executor_;
  std::vector<std::string> ids_, errors_;
  std::vector<std::unique_ptr<mqtt::Client>> links_;
  TaskScope scope_;
  agent::sim::Behaviour behaviour_;
  device::v1::DesiredState desired_;
  device::v1::ReportedState report_;
  Mark last_;
  std::int64_t seq_, sent_ = 0, point_ = 0;
  std::size_t at_ = 0;
};

}  // namespace flock::bench

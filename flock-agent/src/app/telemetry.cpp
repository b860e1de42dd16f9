// SPDX-License-Identifier: Apache-2.0
#include "app/telemetry.h"

#include <algorithm>

#include "async/event.h"
#include "base/error.h"
#include "base/log.h"
#include "host/container_meter.h"
#include "host/host_meter.h"

namespace flock::agent {
namespace {

constexpr Duration kFirstLook{1'000};  // after the start: the first rates are over this time
constexpr int kPoints = 240;           // kept while there is no connection
// A batch that was away long goes out in parts.
constexpr int kPointsPerBatch = 60;

}  // namespace

struct Telemetry::Impl {
  Impl(Executor executor, Options o)
      : options(std::move(o)),
        pace(options.pace),
        host(options.root, options.data_dir),
        containers(options.root),
        wake(executor) {}

  Task<void> run() {
    host.sample();
    containers.sample(options.containers(), std::chrono::steady_clock::now());
    Duration pause = kFirstLook;
    for (;;) {
      co_await wake.wait_for(pause);
      wake.reset();
      look();
      co_await send();
      pause = pace.pause(options.updating());
    }
  }

  void look() {
    device::v1::TelemetryPoint point;
    point.set_at_ms(to_unix_ms(system_clock().now()));
    *point.mutable_host() = host.sample();
    for (auto& service : containers.sample(options.containers(), std::chrono::steady_clock::now()))
      *point.add_services() = std::move(service);
    const bool fresh = waiting.points_size() == 0 && first;
    if (!pace.keep(point) && !fresh) return;
    *waiting.add_points() = std::move(point);
    if (waiting.points_size() <= kPoints) return;
    waiting.mutable_points()->DeleteSubrange(0, 1);
    waiting.set_dropped_points(waiting.dropped_points() + 1);
  }

  Task<void> send() {
    const SteadyPoint now = std::chrono::steady_clock::now();
    if (!options.connected() || !pace.due(now, options.updating())) co_return;
    while (waiting.points_size() > 0) {
      device::v1::TelemetryBatch batch = waiting;
      const int count = std::min(batch.points_size(), kPointsPerBatch);
      batch.mutable_points()->DeleteSubrange(count, batch.points_size() - count);
      try {
        co_await options.send(std::move(batch));
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        log::debug("cannot send telemetry; it is sent with the next", error);
        co_return;
      }
      waiting.mutable_points()->DeleteSubrange(0, count);
      first = false;
      pace.sent(now);
    }
  }

  Options options;
  TelemetryPace pace;
  HostMeter host;
  ContainerMeter containers;
  device::v1::TelemetryBatch waiting;
  bool first = false;  // the next look goes out, whatever it says
  Event wake;
};

Telemetry::Telemetry(Executor executor, Options options)
    : impl_(std::make_unique<Impl>(std::move(executor), std::move(options))) {}
Telemetry::~Telemetry() = default;
Task<void> Telemetry::run() { co_await impl_->run(); }

// A server that was away has missed something: it is told how things are now.
void Telemetry::on_connected() {
  impl_->pace.connected();
  impl_->first = true;
  impl_->wake.set();
}

}  // namespace flock::agent

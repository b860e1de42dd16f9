// SPDX-License-Identifier: Apache-2.0
#include "app/telemetry.h"

#include <utility>

#include "async/event.h"
#include "host/container_meter.h"
#include "host/host_meter.h"

namespace flock::agent {
namespace {

constexpr Duration kFirstLook{1'000};  // after the start: the first rates are over this time

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
      send();
      pause = pace.pause(options.updating());
    }
  }

  void look() {
    device::v1::TelemetryPoint point;
    point.set_at_ms(to_unix_ms(system_clock().now()));
    *point.mutable_host() = host.sample();
    for (auto& service : containers.sample(options.containers(), std::chrono::steady_clock::now()))
      *point.add_services() = std::move(service);
    if (pace.keep(point) || wanted) *waiting.add_points() = std::move(point);
    wanted = false;
  }

  void send() {
    const SteadyPoint now = std::chrono::steady_clock::now();
    if (waiting.points_size() == 0 || !pace.due(now, options.updating())) return;
    options.send(std::exchange(waiting, {}));
    pace.sent(now);
  }

  Options options;
  TelemetryPace pace;
  HostMeter host;
  ContainerMeter containers;
  device::v1::TelemetryBatch waiting;
  bool wanted = false;  // the next look goes out, whatever it says
  Event wake;
};

Telemetry::Telemetry(Executor executor, Options options)
    : impl_(std::make_unique<Impl>(std::move(executor), std::move(options))) {}
Telemetry::~Telemetry() = default;
Task<void> Telemetry::run() { co_await impl_->run(); }

// A server that was away has missed something: it is told how things are now.
void Telemetry::on_connected() {
  impl_->pace.connected();
  impl_->wanted = true;
  impl_->wake.set();
}

}  // namespace flock::agent

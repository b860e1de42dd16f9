// SPDX-License-Identifier: Apache-2.0
#include "sim/virtual_device.h"

#include <algorithm>

#include "async/backoff.h"
#include "async/loop.h"
#include "base/error.h"
#include "base/id.h"

namespace flock::agent::sim {
namespace {

using device::v1::Command;
using device::v1::CommandResult;
using device::v1::DeviceEvent;
using device::v1::ReportedState;

constexpr Duration kWillDelay{30'000};
constexpr Duration kKeepAlive{60'000};
constexpr Duration kSessionLife{7LL * 24 * 3600 * 1000};
constexpr std::size_t kQueueBytes = 256 * 1024;

SteadyPoint steady_now() { return std::chrono::steady_clock::now(); }
std::int64_t unix_now() { return to_unix_ms(system_clock().now()); }

IdentityOptions identity_of(const World& world, int index) {
  IdentityOptions options;
  options.server = world.server;
  options.provisioning_key_file = world.provisioning_key_file;
  options.name = name_of(world.name_prefix, index);
  options.agent_version = "0.1.0-sim";
  options.hardware.set_architecture("amd64");
  options.hardware.set_os("Simulated Linux");
  options.hardware.set_kernel("6.1.0");
  options.hardware.set_hostname(options.name);
  options.hardware.set_memory_bytes(2LL << 30);
  options.hardware.set_cpus(4);
  options.client = world.http;
  options.key = key_of(world.behaviour.seed, options.name);
  return options;
}

}  // namespace

std::string name_of(const std::string& prefix, std::int64_t index) {
  std::string number = std::to_string(index);
  number.insert(0, number.size() < 5 ? 5 - number.size() : 0, '0');
  return prefix + "-" + number;
}

crypto::Key key_of(std::uint64_t seed, const std::string& name) {
  return crypto::Key::from_seed(std::to_string(seed) + "/" + name);
}

VirtualDevice::VirtualDevice(Executor executor, World& world, int index)
    : executor_(executor),
      world_(world),
      index_(index),
      chance_(world.behaviour.seed, index, "life"),
      identity_(identity_of(world, index)),
      wake_(executor),
      boot_id_(new_uuid()),
      seq_(unix_now()),
      log_epoch_(seq_) {}

Task<void> VirtualDevice::run() {
  co_await join();
  const Behaviour& behaviour = world_.behaviour;
  const bool comes_and_goes =
      Chance(behaviour.seed, index_, "presence").percent(behaviour.offline_percent);
  for (;;) {
    start_session();
    co_await live(comes_and_goes ? steady_now() + chance_.around(behaviour.online_for)
                                 : SteadyPoint::max());
    co_await end(chance_.percent(50));  // the others just vanish: the last will tells of them
    co_await sleep_for(chance_.around(behaviour.offline_for));
  }
}

// Without a token there is no device; the server may be busy with all the others.
Task<void> VirtualDevice::join() {
  identity_.load();
  Backoff backoff(Duration(500), Duration(30'000));
  for (;;) {
    try {
      const Gate::Pass pass = co_await world_.joining->enter();
      co_await identity_.token();
      break;
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      ++world_.counts.errors;
      world_.counts.last_error = error.describe();
    }
    co_await sleep_for(backoff.next());
  }
  ++world_.counts.registered;
  if (!identity_.broker_ca().empty() && world_.broker_ca != identity_.broker_ca()) {
    net::TlsOptions tls;
    tls.ca_pem = world_.broker_ca = identity_.broker_ca();
    world_.broker_tls = net::make_tls_client(tls);
  }
}

void VirtualDevice::start_session() {
  mqtt::ClientOptions options;
  options.url = identity_.broker_urls().front();
  options.tls = world_.broker_tls;
  options.client_id = identity_.device_id();
  options.session_expiry = kSessionLife;
  options.keep_alive = kKeepAlive;
  options.queue_bytes = kQueueBytes;
  options.receive_maximum = 8;
  DeviceEvent lost;
  lost.set_boot_id(boot_id_);
  lost.set_seq(++seq_);
  lost.set_at_ms(unix_now());
  lost.set_kind(DeviceEvent::LOST);
  options.will.emplace();
  options.will->topic = "devices/" + identity_.device_id() + "/events";
  options.will->payload = lost.SerializeAsString();
  options.will_delay = kWillDelay;
  options.credentials = [this]() -> Task<mqtt::Credentials> {
    const std::string token = co_await identity_.token();
    co_return mqtt::Credentials{identity_.device_id(), Secret(token)};
  };
  bus_ = std::make_unique<mqtt::Client>(executor_, std::move(options));
  bus_->on_connection([this](bool up, const std::string& reason) {
    if (up != connected_) world_.counts.connected += up ? 1 : -1;
    connected_ = up;
    announce_ = announce_ || up;
    if (!up) {
      world_.counts.last_error = reason;
      if (reason.find("not authorized") != std::string::npos) identity_.forget_token();
    }
    wake_.set();
  });
  session_ = std::make_unique<TaskScope>(executor_);
  session_->spawn("bus", bus_->run());
}

Task<void> VirtualDevice::end(bool goodbye) {
  if (!session_) co_return;
  if (goodbye && connected_) {
    DeviceEvent event;
    event.set_kind(DeviceEvent::OFFLINE);
    co_await tell(std::move(event));
    co_await bus_->disconnect(Duration(2000));
  }
  session_->cancel();
  co_await session_->join();
  session_.reset();
  bus_.reset();
  if (std::exchange(connected_, false)) --world_.counts.connected;
}

Task<void> VirtualDevice::live(SteadyPoint until) {
  for (const char* leaf : {"desired", "commands"}) {
    mqtt::Subscription wanted;
    wanted.filter = "devices/" + identity_.device_id() + "/" + leaf;
    const bool is_desired = leaf == std::string_view("desired");
    co_await bus_->subscribe(wanted, [this, is_desired](mqtt::Delivery delivery) {
      is_desired ? take_desired(std::move(delivery)) : take_command(std::move(delivery));
    });
  }
  // Spread over one period, or all of them speak in the same moment for ever.
  const Behaviour& behaviour = world_.behaviour;
  const SteadyPoint now = steady_now();
  telemetry_due_ = now + chance_.around(behaviour.telemetry_every / 2);
  log_due_ = now + chance_.around(behaviour.log_every / 2);
  for (;;) {
    if (connected_) co_await do_what_is_due(steady_now());
    const SteadyPoint at = steady_now();
    if (at >= until) co_return;
    const SteadyPoint next = std::min(until, connected_ ? next_due() : SteadyPoint::max());
    if (next <= at) continue;
    // Hours at most, for a timer cannot reach the end of time.
    const Duration pause = std::chrono::duration_cast<Duration>(
        std::min(next - at, SteadyPoint::duration(std::chrono::hours(1))));
    co_await wake_.wait_for(pause + Duration(1));
    wake_.reset();
  }
}

SteadyPoint VirtualDevice::next_due() const {
  if (announce_ || !commands_.empty()) return SteadyPoint::min();
  SteadyPoint next = std::min(state_due_, telemetry_due_);
  if (world_.behaviour.log_every.count() > 0) next = std::min(next, log_due_);
  if (step_ < steps_.size()) next = std::min(next, arrived_ + steps_[step_].after);
  return next;
}

Task<void> VirtualDevice::do_what_is_due(SteadyPoint now) {
  const Behaviour& behaviour = world_.behaviour;
  if (std::exchange(announce_, false)) {
    DeviceEvent event;
    event.set_kind(DeviceEvent::ONLINE);
    co_await tell(std::move(event));
    co_await report();
  }
  co_await answer_commands();
  while (step_ < steps_.size() && arrived_ + steps_[step_].after <= now) {
    shown_ = steps_[step_++];
    if (shown_.phase == ReportedState::CONFIRMED) ++world_.counts.confirmed;
    if (shown_.phase == ReportedState::FAILED) ++world_.counts.failed;
    co_await report();
  }
  if (state_due_ <= now) co_await report();
  if (telemetry_due_ <= now) {
    telemetry_due_ = now + behaviour.telemetry_every;
    co_await report_telemetry();
  }
  if (behaviour.log_every.count() > 0 && log_due_ <= now) {
    log_due_ = now + behaviour.log_every;
    co_await write_logs();
  }
}

void VirtualDevice::take_desired(mqtt::Delivery delivery) {
  device::v1::DesiredState fresh;
  // What was taken already comes again with each session: it is retained.
  if (fresh.ParseFromString(delivery.message.payload) && fresh.version() > desired_.version()) {
    desired_ = std::move(fresh);
    steps_ = course(world_.behaviour, index_, desired_);
    step_ = 0;
    shown_ = steps_.front();  // a report on the way must not show how far the last release came
    arrived_ = steady_now();
    wake_.set();
  }
  delivery.ack();
}

void VirtualDevice::take_command(mqtt::Delivery delivery) {
  Command command;
  if (command.ParseFromString(delivery.message.payload)) commands_.push_back(std::move(command));
  wake_.set();
  delivery.ack();
}

Task<void> VirtualDevice::answer_commands() {
  for (const Command& command : std::exchange(commands_, {})) {
    ++world_.counts.commands;
    DeviceEvent event;
    event.set_kind(DeviceEvent::COMMAND);
    event.mutable_command()->set_command_id(command.id());
    const bool late = command.expires_at_ms() > 0 && command.expires_at_ms() < unix_now();
    event.mutable_command()->set_state(late ? CommandResult::EXPIRED : CommandResult::DONE);
    co_await tell(std::move(event));
  }
}

Task<bool> VirtualDevice::publish(const char* leaf, std::string payload) {
  mqtt::Message message;
  message.topic = "devices/" + identity_.device_id() + "/" + leaf;
  message.payload = std::move(payload);
  try {
    co_await bus_->publish(std::move(message));
    ++world_.counts.messages;
    co_return true;
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    ++world_.counts.errors;
    world_.counts.last_error = error.describe();
    co_return false;
  }
}

Task<void> VirtualDevice::tell(DeviceEvent event) {
  event.set_boot_id(boot_id_);
  event.set_seq(++seq_);
  event.set_at_ms(unix_now());
  co_await publish("events", event.SerializeAsString());
}

Task<void> VirtualDevice::report() {
  state_due_ = steady_now() + world_.behaviour.state_every;
  ReportedState state = reported(desired_, shown_);
  state.set_boot_id(boot_id_);
  state.set_seq(++seq_);
  state.set_at_ms(unix_now());
  state.set_agent_version("0.1.0-sim");
  co_await publish("state", state.SerializeAsString());
}

Task<void> VirtualDevice::report_telemetry() {
  device::v1::TelemetryBatch batch;
  batch.set_boot_id(boot_id_);
  batch.set_seq(++seq_);
  *batch.add_points() = telemetry(world_.behaviour, index_, telemetry_number_++, desired_);
  batch.mutable_points(0)->set_at_ms(unix_now());
  co_await publish("telemetry", batch.SerializeAsString());
}

Task<void> VirtualDevice::write_logs() {
  if (shown_.phase != ReportedState::CONFIRMED || desired_.services().empty()) co_return;
  device::v1::LogBatch batch;
  batch.set_boot_id(boot_id_);
  batch.set_seq(++seq_);
  ++log_number_;
  for (const auto& service : desired_.services()) {
    auto& stream = *batch.add_streams();
    stream.set_service(service.name());
    stream.set_epoch(log_epoch_);
    auto& line = *stream.add_lines();
    line.set_number(log_number_);
    line.set_at_ms(unix_now());
    line.set_source(device::v1::LogLine::STDOUT);
    line.set_level(device::v1::LogLine::INFO);
    line.set_text("request " + std::to_string(log_number_) + " took " +
                  std::to_string(chance_.next() % 200) + " ms");
    ++world_.counts.log_lines;
  }
  co_await publish("logs", batch.SerializeAsString());
}

}  // namespace flock::agent::sim

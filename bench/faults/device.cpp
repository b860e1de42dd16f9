// SPDX-License-Identifier: Apache-2.0
#include "faults/device.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "async/loop.h"
#include "base/error.h"
#include "base/id.h"

namespace flock::faults {
namespace {

using agent::Upward;
using device::v1::DeviceEvent;

constexpr Duration kWillDelay{30'000}, kReportPause{1000};  // as flockd has them
constexpr std::int64_t kNumbersOfARun = 1'000'000;
constexpr std::size_t kScrambled = 40;                        // messages that change places
constexpr std::array kLeaves{"telemetry", "logs", "events"};  // by Upward

mqtt::ClientOptions as_flockd(mqtt::ClientOptions options, const std::string& id) {
  options.client_id = id;
  options.session_expiry = Duration(7LL * 24 * 3600 * 1000);
  options.queue_bytes = 1 << 20;
  options.receive_maximum = 16;
  options.unheard_retry = Duration(1000);
  options.will_delay = kWillDelay;
  options.keep_alive = Duration(30'000);
  return options;
}

int number_in(std::string_view text, int base = 10) {
  int number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number, base);
  return number;
}

// Which one of its kind a message is; 0: not one of ours.
std::pair<Kind, int> read_number(std::string_view leaf, const std::string& payload) {
  if (leaf == "events") {
    DeviceEvent event;
    event.ParseFromString(payload);
    if (event.kind() == DeviceEvent::COMMAND)
      return {Kind::kCommand, command_number(event.command().command_id())};
    return {Kind::kHistory, event.kind() == DeviceEvent::SHUTDOWN ? number_in(event.detail()) : 0};
  }
  if (leaf == "telemetry") {
    device::v1::TelemetryBatch batch;
    batch.ParseFromString(payload);
    if (batch.points_size() == 1)
      return {Kind::kTelemetry, static_cast<int>(batch.points(0).host().uptime_seconds())};
  }
  if (leaf == "logs") {
    device::v1::LogBatch batch;
    batch.ParseFromString(payload);
    if (batch.streams_size() == 1 && batch.streams(0).lines_size() == 1)
      return {Kind::kLine, static_cast<int>(batch.streams(0).lines(0).number())};
  }
  return {Kind::kLine, 0};
}

agent::Uplink::Options uplink_options(const DeviceOptions& options) {
  agent::Uplink::Options out;
  out.directory = options.folder;
  out.reconnect_spread = options.reconnect_spread;
  return out;
}

}  // namespace

int command_number(std::string_view id) {
  return id.size() < kCommandDigits ? 0 : number_in(id.substr(id.size() - kCommandDigits), 16);
}

const char* name_of(Kind kind) {
  constexpr std::array kNames{"command", "history", "telemetry", "line"};
  return kNames[static_cast<std::size_t>(kind)];
}

Device::Device(Executor executor, mqtt::ClientOptions bus, std::string id, DeviceOptions options)
    : executor_(executor),
      id_(std::move(id)),
      options_(std::move(options)),
      bus_(executor, as_flockd(std::move(bus), id_)),
      uplink_(executor,
              [this] {
                agent::Uplink::Options out = uplink_options(options_);
                out.next_seq = [this] { return ++seq_; };
                out.publish = [this](Upward kind, std::string payload) {
                  return send_kept(kind, std::move(payload));
                };
                return out;
              }()),
      scope_(executor),
      sending_(executor),
      changed_(executor),
      seq_(to_unix_ms(system_clock().now())),
      first_seq_(seq_),
      boot_id_(new_uuid()),
      random_(options_.seed) {
  bus_.set_will(will());
  bus_.on_connection([this](bool up, const std::string&) {
    connected_ = up;
    hello_ = hello_ || up;
    // Numbered behind all of the connection that ended.
    if (!up) bus_.set_will(will());
    uplink_.set_connected(up);
    changed_.set();
  });
}

Task<void> Device::connect() {
  uplink_.start();
  scope_.spawn("bus", bus_.run());
  scope_.spawn("reports", report_loop());
  co_await bus_.wait_connected();
}

// Never the same twice: two points of one time would be one.
std::int64_t Device::now_ms() {
  at_ms_ = std::max(to_unix_ms(system_clock().now() + clock_off_), at_ms_ + 1);
  return at_ms_;
}

void Device::restart_with_clock(Duration off) {
  clock_off_ = off;
  at_ms_ = 0;
  const std::int64_t now = now_ms();
  first_seq_ = now <= first_seq_ ? first_seq_ + kNumbersOfARun : now;
  seq_ = first_seq_;
  boot_id_ = new_uuid();
}

// --- What it says
// -----------------------------------------------------------------------------------------

DeviceEvent Device::event(DeviceEvent::Kind kind) {
  DeviceEvent event;
  event.set_boot_id(boot_id_);
  event.set_seq(++seq_);
  event.set_at_ms(now_ms());
  event.set_kind(kind);
  return event;
}

mqtt::Message Device::will() {
  mqtt::Message message;
  message.topic = "devices/" + id_ + "/events";
  message.payload = event(DeviceEvent::LOST).SerializeAsString();
  return message;
}

// Every report says something new.
device::v1::ReportedState Device::report() {
  device::v1::ReportedState state;
  state.set_boot_id(boot_id_);
  state.set_seq(++seq_);
  state.set_at_ms(now_ms());
  state.set_phase(device::v1::ReportedState::IDLE);
  state.set_error(std::to_string(round_));
  return state;
}

void Device::speak(int round) {
  round_ = round;
  said_.push_back(std::chrono::steady_clock::now());
  DeviceEvent command = event(DeviceEvent::COMMAND);
  char digits[kCommandDigits + 1];
  std::snprintf(digits, sizeof digits, "%08x", static_cast<unsigned>(round));
  command.mutable_command()->set_command_id(options_.command_id + digits);
  command.mutable_command()->set_state(device::v1::CommandResult::DONE);
  say(Upward::kEvents, "events", command.SerializeAsString());
  if (round % kHistoryEvery == 0) {
    DeviceEvent history = event(DeviceEvent::SHUTDOWN);
    history.set_detail(std::to_string(numbered(Kind::kHistory, round)));
    say(Upward::kEvents, "events", history.SerializeAsString());
  }
  device::v1::TelemetryBatch telemetry;
  telemetry.set_boot_id(boot_id_);
  telemetry.set_seq(++seq_);
  auto* point = telemetry.add_points();
  point->set_at_ms(now_ms());
  point->mutable_host()->set_uptime_seconds(round);
  say(Upward::kTelemetry, "telemetry", telemetry.SerializeAsString());
  device::v1::LogBatch logs;
  logs.set_boot_id(boot_id_);
  logs.set_seq(++seq_);
  auto* stream = logs.add_streams();
  stream->set_service("web");
  stream->set_epoch(1);
  auto* line = stream->add_lines();
  line->set_number(round);
  line->set_at_ms(now_ms());
  line->set_source(device::v1::LogLine::STDOUT);
  line->set_text(std::to_string(round) + std::string(options_.line_bytes, '.'));
  say(Upward::kLogs, "logs", logs.SerializeAsString());
  if (!options_.scrambled) return changed_.set();
  say(Upward::kEvents, "state", report().SerializeAsString());
  reported_ = round;
  if (scrambled_.size() >= kScrambled) flush();
}

void Device::say(Upward kind, const char* leaf, std::string payload) {
  if (!options_.scrambled) return uplink_.send(kind, std::move(payload));
  scrambled_.push_back({leaf, payload});
  scrambled_.push_back({leaf, std::move(payload)});
}

void Device::flush() {
  std::ranges::shuffle(scrambled_, random_);
  for (Numbered& message : std::exchange(scrambled_, {}))
    sending_.spawn("send", send(message.leaf, std::move(message.payload)));
}

// --- The way to the broker
// --------------------------------------------------------------------------------

Task<void> Device::send(std::string leaf, std::string payload) {
  mqtt::Message message;
  message.topic = "devices/" + id_ + "/" + leaf;
  message.payload = payload;
  co_await bus_.publish(std::move(message));
  note(leaf.c_str(), payload);
}

Task<void> Device::send_kept(Upward kind, std::string payload) {
  return send(kLeaves[static_cast<std::size_t>(kind)], std::move(payload));
}

void Device::note(const char* leaf, const std::string& payload) {
  const auto [kind, number] = read_number(leaf, payload);
  if (number > 0)
    acknowledged_[static_cast<std::size_t>(kind)].emplace(number, std::chrono::steady_clock::now());
}

// The newest report only, behind a hello after each connection.
Task<void> Device::report_loop() {
  for (;;) {
    co_await changed_.wait();
    changed_.reset();
    if (!connected_) continue;
    Duration pause{0};
    try {
      if (std::exchange(hello_, false))
        co_await send("events", event(DeviceEvent::ONLINE).SerializeAsString());
      if (reported_ < round_) {
        const int round = round_;
        co_await send("state", report().SerializeAsString());
        reported_ = round;
      }
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      hello_ = true;
      changed_.set();
      pause = kReportPause;
    }
    if (pause.count() > 0) co_await sleep_for(pause);
  }
}

SteadyPoint Device::acknowledged(Kind kind, int number) const {
  const auto& numbers = acknowledged_[static_cast<std::size_t>(kind)];
  const auto found = numbers.find(number);
  return found == numbers.end() ? SteadyPoint::max() : found->second;
}

bool Device::all_sent() const {
  if (reported_ < round_ || !scrambled_.empty() || sending_.size() > 0) return false;
  return std::ranges::all_of(kKinds, [this](Kind kind) {
    return acknowledged_[static_cast<std::size_t>(kind)].size() ==
           static_cast<std::size_t>(numbered(kind, round_));
  });
}

std::string Device::waiting() const {
  const agent::Lost& lost = uplink_.lost();
  return std::to_string(uplink_.waiting_records()) + " on disk, lost " +
         std::to_string(lost.events + lost.log_lines + lost.telemetry_points) +
         (connected_ ? ", connected" : ", not connected");
}

Task<void> Device::close() {
  flush();
  co_await sending_.join();
  co_await uplink_.stop(Duration(1000));
  co_await bus_.disconnect(Duration(1000));
  scope_.cancel();
  co_await scope_.join();
}

}  // namespace flock::faults

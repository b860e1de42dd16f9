// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "async/event.h"
#include "async/scope.h"
#include "flock/device/v1/device.pb.h"
#include "link/uplink.h"
#include "mqtt/client.h"

namespace flock::faults {

// What is numbered, from 1, for each device. Of reports only the newest counts.
enum class Kind { kCommand, kHistory, kTelemetry, kLine };
inline constexpr std::array kKinds{Kind::kCommand, Kind::kHistory, Kind::kTelemetry, Kind::kLine};
const char* name_of(Kind kind);
// Which one the id of a command stands for.
inline constexpr std::size_t kCommandDigits = 8;
int command_number(std::string_view id);

// A device says something for the history in one of so many rounds.
inline constexpr int kHistoryEvery = 5;
// How many messages of `kind` there are after `rounds`.
inline int numbered(Kind kind, int rounds) {
  return kind == Kind::kHistory ? rounds / kHistoryEvery : rounds;
}

struct DeviceOptions {
  std::string folder;      // of its own
  std::string command_id;  // of each: all but the last 8 digits, which are its number
  Duration reconnect_spread{5000};
  std::size_t line_bytes = 40;
  bool scrambled = false;  // everything twice and out of order, straight to the broker
  unsigned seed = 1;       // of the order
};

// Speaks as flockd does, with flockd's own way up: what the broker does not acknowledge is kept,
// on disk if need be, and sent again. Everything it says is numbered.
class Device {
 public:
  Device(Executor executor, mqtt::ClientOptions bus, std::string id, DeviceOptions options);
  Task<void> connect();
  // One message of each kind, and a report.
  void speak(int round);
  // As when flockd starts again on a machine whose clock is off by this.
  void restart_with_clock(Duration off);
  // Sends what waits to be scrambled.
  void flush();
  // The broker has acknowledged all of it.
  bool all_sent() const;
  // What waits on its disk, and what was thrown away; for people.
  std::string waiting() const;
  Task<void> close();
  // Says this, whatever it is, straight to the broker.
  Task<void> send(std::string leaf, std::string payload);

  const std::string& id() const noexcept { return id_; }
  const std::string& command_id() const noexcept { return options_.command_id; }
  // When the broker acknowledged it first; never: the end of time.
  SteadyPoint acknowledged(Kind kind, int number) const;
  SteadyPoint said(int round) const { return said_.at(static_cast<std::size_t>(round - 1)); }

 private:
  struct Numbered {
    const char* leaf;
    std::string payload;
  };
  void say(agent::Upward kind, const char* leaf, std::string payload);
  void note(const char* leaf, const std::string& payload);
  Task<void> report_loop();
  Task<void> send_kept(agent::Upward kind, std::string payload);
  device::v1::DeviceEvent event(device::v1::DeviceEvent::Kind kind);
  device::v1::ReportedState report();
  mqtt::Message will();
  std::int64_t now_ms();

  Executor executor_;
  const std::string id_;
  const DeviceOptions options_;
  mqtt::Client bus_;
  agent::Uplink uplink_;
  TaskScope scope_, sending_;
  Event changed_;
  Duration clock_off_{0};
  std::int64_t seq_, first_seq_, at_ms_ = 0;
  std::string boot_id_;
  int round_ = 0, reported_ = 0;
  bool connected_ = false, hello_ = false;
  std::vector<SteadyPoint> said_;
  std::array<std::map<int, SteadyPoint>, kKinds.size()> acknowledged_;
  std::vector<Numbered> scrambled_;
  std::mt19937 random_;
};

}  // namespace flock::faults

// SPDX-License-Identifier: Apache-2.0
// What virtual devices do, decided by a seed alone: the same seed, device and release give the same
// course in every run. No clock, no I/O.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "flock/device/v1/device.pb.h"

namespace flock::agent::sim {

struct Behaviour {
  std::uint64_t seed = 1;
  std::int64_t fail_update_percent = 0;  // of devices, for each release anew
  std::string fail_release;              // version of a release that every device fails; "": none
  std::int64_t offline_percent = 0;      // of devices, that come and go
  Duration update_time{4'000};           // from a release's arrival to all running; +-50 %
  Duration online_for{120'000}, offline_for{60'000};  // of those that come and go; +-50 %
  Duration state_every{60'000}, telemetry_every{60'000};
  Duration log_every{0};  // a line of each service; 0: none
};

// Uniform numbers of one device for one purpose.
class Chance {
 public:
  Chance(std::uint64_t seed, int device, std::string_view purpose);
  std::uint64_t next() noexcept;
  double unit() noexcept;  // [0, 1)
  bool percent(std::int64_t share) noexcept { return unit() * 100 < static_cast<double>(share); }
  // `mean` +-50 %.
  Duration around(Duration mean) noexcept;

 private:
  std::uint64_t state_;
};

// One step of an update: `after` the arrival of the desired state, the device reports `phase`.
struct Step {
  Duration after{0};
  device::v1::ReportedState::Phase phase{};
  std::string error_code, error;
};

// The course of this update on this device; the last step is CONFIRMED, FAILED or IDLE.
std::vector<Step> course(const Behaviour& behaviour, int device,
                         const device::v1::DesiredState& desired);

// What the device reports at `step`: with the proof of running once it is there. Without boot_id,
// seq and times.
device::v1::ReportedState reported(const device::v1::DesiredState& desired, const Step& step);

// A plausible look at the machine, as a slow random walk.
device::v1::TelemetryPoint telemetry(const Behaviour& behaviour, int device, std::int64_t number,
                                     const device::v1::DesiredState& desired);

}  // namespace flock::agent::sim

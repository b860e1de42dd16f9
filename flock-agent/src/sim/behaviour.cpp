// SPDX-License-Identifier: Apache-2.0
#include "sim/behaviour.h"

#include <cmath>

namespace flock::agent::sim {
namespace {

using device::v1::DesiredState;
using device::v1::ReportedState;
using device::v1::ServiceState;

// splitmix64 (Steele, Lea, Flood 2014): small, and good from any seed.
std::uint64_t mix(std::uint64_t value) noexcept {
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ULL;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBULL;
  return value ^ (value >> 31);
}

// FNV-1a; std::hash may differ from one library to the next.
std::uint64_t hash_of(std::string_view text) noexcept {
  std::uint64_t hash = 0xCBF29CE484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  return hash;
}

std::string digest_of(const std::string& image) {
  const std::size_t at = image.find('@');
  return at == std::string::npos ? "" : image.substr(at + 1);
}

// Between 0 and 1, wandering slowly with `number`, of another phase for each device and `purpose`.
float wave(const Behaviour& behaviour, int device, std::int64_t number, std::string_view purpose) {
  Chance chance(behaviour.seed, device, purpose);
  const double phase = chance.unit() * 2 * M_PI, period = 20 + chance.unit() * 60;
  return static_cast<float>(
      0.5 + 0.5 * std::sin(phase + 2 * M_PI * static_cast<double>(number) / period));
}

}  // namespace

Chance::Chance(std::uint64_t seed, int device, std::string_view purpose)
    : state_(mix(seed ^ mix(static_cast<std::uint64_t>(device) + 1) ^ hash_of(purpose))) {}

std::uint64_t Chance::next() noexcept { return mix(state_ += 0x9E3779B97F4A7C15ULL); }
double Chance::unit() noexcept { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

Duration Chance::around(Duration mean) noexcept {
  return Duration(static_cast<Duration::rep>(static_cast<double>(mean.count()) * (0.5 + unit())));
}

std::vector<Step> course(const Behaviour& behaviour, int device, const DesiredState& desired) {
  if (desired.services().empty()) return {{Duration(0), ReportedState::IDLE, "", ""}};
  Chance chance(behaviour.seed, device, desired.release_id());
  const bool is_bad =
      !behaviour.fail_release.empty() && desired.release_version() == behaviour.fail_release;
  const bool fails = chance.percent(behaviour.fail_update_percent) || is_bad;
  const Duration whole = chance.around(behaviour.update_time);
  std::vector<Step> steps{{Duration(0), ReportedState::DOWNLOADING, "", ""}};
  if (fails && chance.percent(50)) {
    steps.push_back({whole / 2, ReportedState::FAILED, "image_pull_failed",
                     "the registry does not have the image (simulated)"});
    return steps;
  }
  steps.push_back({whole / 2, ReportedState::STARTING, "", ""});
  if (fails) {
    steps.push_back(
        {whole, ReportedState::FAILED, "exited", "the service exited with code 1 (simulated)"});
    return steps;
  }
  steps.push_back({whole, ReportedState::SOAKING, "", ""});
  steps.push_back({whole + Duration(desired.soak_ms()), ReportedState::CONFIRMED, "", ""});
  return steps;
}

ReportedState reported(const DesiredState& desired, const Step& step) {
  ReportedState state;
  state.set_desired_version(desired.version());
  state.set_release_id(desired.release_id());
  state.set_rollout_id(desired.rollout_id());
  state.set_phase(step.phase);
  state.set_error_code(step.error_code);
  state.set_error(step.error);
  const bool runs = step.phase == ReportedState::SOAKING || step.phase == ReportedState::CONFIRMED;
  if (desired.has_host_command() && runs) {  // made up like the containers
    auto* done = state.mutable_host_command();
    done->set_id(desired.host_command().id());
    done->set_step(desired.host_command().undo() ? device::v1::HostCommandState::UNDONE
                                                 : device::v1::HostCommandState::DONE);
    done->set_exit_code(0);
    done->set_output("simulated\n");
  }
  for (const auto& wanted : desired.services()) {
    ServiceState& service = *state.add_services();
    service.set_name(wanted.name());
    service.set_state(runs                                       ? ServiceState::RUNNING
                      : step.phase == ReportedState::DOWNLOADING ? ServiceState::PULLING
                      : step.error_code == "exited"              ? ServiceState::EXITED
                                                                 : ServiceState::PENDING);
    if (step.error_code == "exited") service.set_exit_code(1);
    if (!runs) continue;
    service.set_image_digest(digest_of(wanted.image()));
    service.set_container_id("simulated");
    service.set_health(wanted.has_healthcheck() ? ServiceState::HEALTHY : ServiceState::NO_CHECK);
  }
  return state;
}

device::v1::TelemetryPoint telemetry(const Behaviour& behaviour, int device, std::int64_t number,
                                     const DesiredState& desired) {
  constexpr std::int64_t kGiB = 1LL << 30;
  device::v1::TelemetryPoint point;
  auto& host = *point.mutable_host();
  host.set_cpu_ratio(0.05F + 0.4F * wave(behaviour, device, number, "cpu"));
  host.set_memory_total_bytes(2 * kGiB);
  host.set_memory_used_bytes(
      kGiB / 2 + static_cast<std::int64_t>(wave(behaviour, device, number, "memory") * (kGiB / 2)));
  host.set_disk_total_bytes(16 * kGiB);
  host.set_disk_used_bytes(4 * kGiB + number * 4096);
  host.set_temperature_celsius(40 + 25 * wave(behaviour, device, number, "temperature"));
  host.set_load_1m(2 * wave(behaviour, device, number, "load"));
  host.set_uptime_seconds(number * behaviour.telemetry_every.count() / 1000);
  host.set_network_received_bytes(number * 24'000);
  host.set_network_sent_bytes(number * 6'000);
  for (const auto& wanted : desired.services()) {
    auto& service = *point.add_services();
    service.set_service(wanted.name());
    service.set_cpu_cores(0.2F * wave(behaviour, device, number, wanted.name()));
    service.set_memory_bytes(32 << 20);
    service.set_pids(4);
  }
  return point;
}

}  // namespace flock::agent::sim

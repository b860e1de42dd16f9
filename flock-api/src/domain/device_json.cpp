// SPDX-License-Identifier: Apache-2.0
#include "domain/device_json.h"

#include <algorithm>
#include <boost/json.hpp>

#include "domain/uplink.h"

namespace flock::domain {
namespace {

namespace bj = boost::json;

const char* phase_name(device::v1::ReportedState::Phase phase) {
  using R = device::v1::ReportedState;
  switch (phase) {
    case R::IDLE:
      return "IDLE";
    case R::DOWNLOADING:
      return "DOWNLOADING";
    case R::STARTING:
      return "STARTING";
    case R::SOAKING:
      return "SOAKING";
    case R::CONFIRMED:
      return "CONFIRMED";
    case R::FAILED:
      return "FAILED";
    default:
      return "UNKNOWN";
  }
}
const char* state_name(device::v1::ServiceState::State state) {
  static constexpr const char* kNames[] = {"UNKNOWN", "PENDING", "PULLING", "CREATED",
                                           "RUNNING", "EXITED",  "MISSING"};
  return state >= 0 && state < 7 ? kNames[state] : "UNKNOWN";
}
const char* health_name(device::v1::ServiceState::Health health) {
  static constexpr const char* kNames[] = {"UNKNOWN", "NO_CHECK", "CHECKING", "HEALTHY",
                                           "UNHEALTHY"};
  return health >= 0 && health < 5 ? kNames[health] : "UNKNOWN";
}

constexpr std::size_t kOutputBytes = 8 << 10, kErrorBytes = 4 << 10;

// PostgreSQL's jsonb takes no NUL.
std::string clean(const std::string& text, std::size_t limit) {
  std::string out = shortened(text, limit);
  std::erase(out, '\0');
  return out;
}

}  // namespace

TimePoint device_time(std::int64_t unix_ms) {
  return from_unix_ms(std::clamp<std::int64_t>(unix_ms, 0, 253'402'300'799'999));
}

bj::object exit_json(const device::v1::Exit& exit) {
  static constexpr const char* kBy[] = {"UNKNOWN", "ITSELF", "FLOCK", "OTHERS", "KERNEL"};
  bj::object out{{"code", exit.code()},
                 {"by", kBy[exit.by() >= 0 && exit.by() < 5 ? exit.by() : 0]}};
  if (exit.signal() != 0) out["signal"] = exit.signal();
  if (exit.out_of_memory()) out["out_of_memory"] = true;
  if (exit.at_ms() != 0) out["at"] = to_rfc3339(device_time(exit.at_ms()));
  return out;
}

const char* command_state(device::v1::CommandResult::State state) {
  static constexpr const char* kNames[] = {"UNKNOWN", "STARTED", "DONE", "FAILED", "EXPIRED"};
  return kNames[state >= 0 && state < 5 ? state : 0];
}

bj::object host_command_json(const device::v1::HostCommandState& state) {
  static constexpr const char* kSteps[] = {"UNKNOWN",   "RUNNING",      "REBOOTING",
                                           "VERIFYING", "ROLLING_BACK", "DONE",
                                           "FAILED",    "UNDONE",       "UNDO_FAILED"};
  bj::object out{{"step", kSteps[state.step() >= 0 && state.step() < 9 ? state.step() : 0]},
                 {"output", clean(state.output(), kOutputBytes)}};
  if (state.has_exit_code()) out["exit_code"] = state.exit_code();
  if (state.dropped_bytes() > 0) out["dropped_bytes"] = state.dropped_bytes();
  if (!state.error().empty()) out["error"] = clean(state.error(), kErrorBytes);
  if (state.started_at_ms() > 0) out["started_at"] = to_rfc3339(device_time(state.started_at_ms()));
  if (state.ended_at_ms() > 0) out["ended_at"] = to_rfc3339(device_time(state.ended_at_ms()));
  return out;
}

bj::object reported_json(const device::v1::ReportedState& report) {
  bj::array services;
  for (const auto& s : report.services()) {
    bj::object service{{"name", s.name()},
                       {"state", state_name(s.state())},
                       {"health", health_name(s.health())},
                       {"image_digest", s.image_digest()},
                       {"restart_count", s.restart_count()},
                       {"container_id", s.container_id()}};
    if (s.state() == device::v1::ServiceState::EXITED) service["exit_code"] = s.exit_code();
    if (s.state() == device::v1::ServiceState::PULLING) service["pull_percent"] = s.pull_percent();
    if (s.started_at_ms() != 0) service["started_at"] = to_rfc3339(device_time(s.started_at_ms()));
    if (s.has_last_exit()) service["last_exit"] = exit_json(s.last_exit());
    if (!s.message().empty()) service["message"] = s.message();
    services.push_back(std::move(service));
  }
  bj::object out{{"phase", phase_name(report.phase())},
                 {"release_id", report.release_id()},
                 {"desired_version", report.desired_version()},
                 {"at", to_rfc3339(device_time(report.at_ms()))},
                 {"services", std::move(services)}};
  if (!report.error().empty()) out["error"] = report.error();
  if (!report.error_code().empty()) out["error_code"] = report.error_code();
  if (report.has_host_command()) out["host_command"] = host_command_json(report.host_command());
  if (report.has_rollback()) {
    const device::v1::Rollback& back = report.rollback();
    bj::object rollback{{"phase", phase_name(back.phase())},
                        {"at", to_rfc3339(device_time(back.at_ms()))}};
    if (!back.release_id().empty()) {
      rollback["release_id"] = back.release_id();
      rollback["release_version"] = back.release_version();
    }
    out["rollback"] = std::move(rollback);
  }
  return out;
}

}  // namespace flock::domain

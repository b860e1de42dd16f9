// SPDX-License-Identifier: Apache-2.0
#include "domain/device_progress.h"

#include <algorithm>

namespace flock::domain {
namespace {

// "registry/name@sha256:..." -> "sha256:..."
std::string digest_of(const std::string& image) {
  const std::size_t at = image.find('@');
  return at == std::string::npos ? "" : image.substr(at + 1);
}

// The first thing that speaks against the proof, or "".
std::string missing_proof(const device::v1::ReportedState& report,
                          const device::v1::DesiredState& desired) {
  using State = device::v1::ServiceState;
  for (const auto& wanted : desired.services()) {
    const auto found = std::find_if(report.services().begin(), report.services().end(),
                                    [&](const State& s) { return s.name() == wanted.name(); });
    if (found == report.services().end()) return wanted.name() + " is not reported";
    if (found->image_digest() != digest_of(wanted.image()))
      return wanted.name() + " runs another image";
    const bool done = found->state() == State::EXITED && found->exit_code() == 0 &&
                      wanted.restart().policy() == device::v1::Restart::NO;
    if (found->state() != State::RUNNING && !done) return wanted.name() + " does not run";
    if (!done && found->health() != State::NO_CHECK && found->health() != State::HEALTHY)
      return wanted.name() + " is not healthy";
  }
  return "";
}

// A flockd that knows no host commands says nothing of them.
bool is_machine_done(const device::v1::ReportedState& report,
                     const device::v1::DesiredState& desired) {
  using State = device::v1::HostCommandState;
  if (!desired.has_host_command()) return true;
  const State& done = report.host_command();
  if (done.id() != desired.host_command().id()) return false;
  if (!desired.host_command().undo()) return done.step() == State::DONE;
  return done.step() == State::UNDONE || done.step() == State::FAILED;  // that was rolled back
}

DeviceProgress phase_of(const device::v1::ReportedState& report,
                        const device::v1::DesiredState& desired) {
  using Report = device::v1::ReportedState;
  switch (report.phase()) {
    case Report::DOWNLOADING:
      return {"DOWNLOADING", ""};
    case Report::STARTING:
      return {"STARTING", ""};
    case Report::SOAKING:
      return {"SOAKING", ""};
    case Report::FAILED:
      return {"FAILED", report.error_code() + ": " + report.error()};
    case Report::CONFIRMED: {
      const std::string missing = is_machine_done(report, desired) ? missing_proof(report, desired)
                                                                   : "the host command is not done";
      if (missing.empty()) return {"CONFIRMED", ""};
      return {"SOAKING", "confirmed without proof: " + missing};
    }
    default:
      return {};
  }
}

}  // namespace

DeviceProgress progress_of(const device::v1::ReportedState& report,
                           const device::v1::DesiredState& desired) {
  if (report.desired_version() != desired.version()) return {};
  DeviceProgress progress = phase_of(report, desired);
  for (const auto& service : report.services()) {
    const auto same = [&](const auto& wanted) { return wanted.name() == service.name(); };
    if (std::none_of(desired.services().begin(), desired.services().end(), same)) continue;
    progress.unhealthy |= service.health() == device::v1::ServiceState::UNHEALTHY;
    progress.restarting |= service.restart_count() >= kLoop;
  }
  return progress;
}

}  // namespace flock::domain

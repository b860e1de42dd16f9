// SPDX-License-Identifier: Apache-2.0
#include "domain/rollout.h"

#include <algorithm>

namespace flock::domain {
namespace {

std::string failure_text(const RolloutCounts& counts, const std::string& first) {
  const std::int64_t judged = counts.total - counts.superseded;
  return std::to_string(counts.failed) + " of " + std::to_string(judged) +
         (judged == 1 ? " device" : " devices") + " failed" + (first.empty() ? "" : ": " + first);
}

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

}  // namespace

Judgement judge(const RolloutCounts& counts, double max_failed_ratio,
                const std::string& first_failure) {
  const std::int64_t judged = counts.total - counts.superseded;
  if (counts.total > 0 && judged == 0)
    return {Verdict::kSuperseded, "newer deployments took every device"};
  if (judged == 0) return {Verdict::kComplete, ""};
  const double failed = static_cast<double>(counts.failed) / static_cast<double>(judged);
  if (counts.failed > 0 &&
      (failed > max_failed_ratio || (counts.open() == 0 && counts.confirmed == 0))) {
    return {Verdict::kFail, failure_text(counts, first_failure)};
  }
  if (counts.open() > 0) return {};
  return {Verdict::kComplete, counts.failed > 0 ? failure_text(counts, first_failure) : ""};
}

DeviceProgress progress_of(const device::v1::ReportedState& report,
                           const device::v1::DesiredState& desired) {
  using Report = device::v1::ReportedState;
  if (report.desired_version() != desired.version()) return {};
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
      const std::string missing = missing_proof(report, desired);
      if (missing.empty()) return {"CONFIRMED", ""};
      return {"SOAKING", "confirmed without proof: " + missing};
    }
    default:
      return {};
  }
}

}  // namespace flock::domain

// SPDX-License-Identifier: Apache-2.0
#include "domain/trial.h"

#include <algorithm>

namespace flock::agent {
namespace {

// A flockd that was started again needs a moment to see that all is well.
constexpr Duration kFirstLook{15'000};

std::optional<Failure> lost_contact(Trial& trial, bool there, const TrialLimits& limits,
                                    SteadyPoint now) {
  if (there) trial.contact_at = now;
  if (there || limits.contact == Duration(0) || now - trial.contact_at < limits.contact)
    return std::nullopt;
  return Failure{"lost_contact", "the server could not be reached for " +
                                     to_string(limits.contact) +
                                     " after the switch, although it could be before"};
}

}  // namespace

bool in_contact(const Trial& trial, const Contact& contact, SteadyPoint settled_since) {
  const SteadyPoint proven = settled_since == SteadyPoint() ? trial.since : settled_since;
  return !trial.had_contact || (contact.there && contact.heard >= proven);
}

std::optional<Failure> judge(Trial& trial, const DesiredState& state, const Plan& plan,
                             const Contact& contact, SteadyPoint settled_since,
                             const TrialLimits& limits, SteadyPoint now) {
  trial.settled = trial.settled || plan.settled;
  if (plan.phase == ReportedState::FAILED && !plan.transient)
    return Failure{plan.error_code, plan.error};
  const bool reboots = state.host_command().reboot() == device::v1::HostCommand::AFTER_SUCCESS ||
                       state.host_command().reboot() == device::v1::HostCommand::EXPECTED;
  if (limits.boots > 0 && trial.boots >= limits.boots + (reboots ? 1 : 0))
    return Failure{"restarts", "the machine started again " + std::to_string(trial.boots) +
                                   " times before the release was confirmed"};
  if (auto lost = lost_contact(trial, in_contact(trial, contact, settled_since), limits, now))
    return lost;
  const Duration own(state.start_timeout_ms());
  const Duration start = own > Duration(0) ? own : limits.start;
  // One that was healthy for a moment and is not again may be in the middle of its soak.
  const Duration allowed = start + (trial.settled ? Duration(state.soak_ms()) : Duration(0));
  if (plan.settled || start == Duration(0) || now - trial.since < allowed) return std::nullopt;
  if (trial.watched != trial.since && now - trial.watched < kFirstLook) return std::nullopt;
  return Failure{"not_healthy_in_time",
                 (plan.waits_for.empty() ? std::string("a service") : plan.waits_for) +
                     " did not run and become healthy within " + to_string(allowed)};
}

std::optional<Failure> judge_contact(Trial& trial, const Contact& contact,
                                     const TrialLimits& limits, SteadyPoint now) {
  return lost_contact(trial, in_contact(trial, contact, SteadyPoint()), limits, now);
}

}  // namespace flock::agent

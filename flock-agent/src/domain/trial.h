// SPDX-License-Identifier: Apache-2.0
// The time between this device's switch to another release and its confirmation, in which the
// device goes back by itself to what it ran before. No I/O, no clock.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/time.h"
#include "domain/plan.h"

namespace flock::agent {

struct Trial {
  std::int64_t version = 0;  // of the desired state on trial; 0: none is
  SteadyPoint since{};       // the switch
  SteadyPoint watched{};     // since when this flockd looks on: the switch, or its own start
  bool had_contact = false;  // with the server at the switch: a release that takes it away is bad
  bool settled = false;      // all services ran and were healthy, at some moment since
  int boots = 0;             // how often the machine started again since the switch
  SteadyPoint contact_at{};  // the last moment with contact, or the switch
};

// With the server: its broker acknowledged a report at `heard` (SteadyPoint(): never), and the
// connection did not break since.
struct Contact {
  bool there = false;
  SteadyPoint heard{};
};

// A release that stays within all of them is never taken back. Durations of 0 are no limit.
struct TrialLimits {
  Duration start{600'000};    // from the switch until all services are healthy
  Duration contact{300'000};  // without contact, if there was one at the switch
  int boots = 3;
};

struct Failure {
  std::string code, error;  // as in ReportedState
};

// Whether contact is proven for what runs since `settled_since` (SteadyPoint(): it is not settled,
// then since the switch). True for a device that had none at the switch.
bool in_contact(const Trial& trial, const Contact& contact, SteadyPoint settled_since);

// Why the release on trial is to be taken back; nothing while it can still be confirmed. `trial`
// is brought up to date by what is seen. `state` is on trial, `plan` what is planned for it.
std::optional<Failure> judge(Trial& trial, const DesiredState& state, const Plan& plan,
                             const Contact& contact, SteadyPoint settled_since,
                             const TrialLimits& limits, SteadyPoint now);
// The same of a release that still runs while its successor is downloaded: of its services nothing
// is known any more.
std::optional<Failure> judge_contact(Trial& trial, const Contact& contact,
                                     const TrialLimits& limits, SteadyPoint now);

}  // namespace flock::agent

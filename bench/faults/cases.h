// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "faults/suite.h"

namespace flock::faults {

// The two that run beside each other.
struct Pair {
  Program& a;
  Program& b;
};

// Each server and an ingester, killed and paused.
std::vector<Case> outages(const Suite& suite, Pair ingesters);
// What devices may send that they should not.
std::vector<Case> bad_input(const Suite& suite, Pair ingesters);
// Ingesters without room for what the time series cannot take, of their own.
Task<void> run_without_room(Suite& suite);

}  // namespace flock::faults

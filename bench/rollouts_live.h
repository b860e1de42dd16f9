// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "faults/stack.h"

namespace flock::bench {

// A scheduler as a process of its own, over the database that bench_rollouts has filled.
struct LiveOptions {
  std::string org;
  std::int64_t confirmations = 100'000;  // within a minute
  int rollouts = 4;                      // of many small stages, one after the other
};

// What the scheduler spends on many confirmations, and how long a rollout stands still between the
// last confirmation that it waits for and the next stage's first desired state, and how fast a
// stage of many devices is given out. Prints all three.
Task<void> run_live(const faults::Stack& stack, postgres::Database& db, LiveOptions options);

}  // namespace flock::bench

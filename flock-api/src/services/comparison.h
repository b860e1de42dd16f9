// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "domain/rollout_gate.h"
#include "stores/postgres/database.h"

namespace flock::services {

struct Comparison {
  std::string org, rollout;
  std::size_t index = 0;  // of the gate in the plan
  const domain::Gate& gate;
  std::int64_t accepted_ms = 0;  // evidence from before counts no more
  std::int64_t at_ms = 0;
};

// Goes on with a comparison from the evidence that is kept: bets on the devices whose time has come
// since, each once, in the order in which they were reached, against devices from the end of the
// rollout. The order does not depend on how they do: one that has not settled is waited for, one
// that is away before it settled is left out, and one that served as another is no updated one
// later. `kept` becomes what to keep.
Task<domain::Evidence> gather(postgres::Database& db, Comparison comparison, std::string& kept);

}  // namespace flock::services

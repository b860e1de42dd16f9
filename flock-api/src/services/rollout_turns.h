// SPDX-License-Identifier: Apache-2.0
// Who may begin now: those whose maintenance window is open, and those that get another try.
#pragma once

#include "services/rollout_engine.h"

namespace flock::services {

// Parts those that wait by their windows; without windows nothing is looked at.
Task<void> look_at_windows(postgres::Transaction& tx, const LockedRollout& rollout,
                           domain::RolloutSeen& seen);
Task<void> look_at_retries(postgres::Transaction& tx, const LockedRollout& rollout,
                           domain::RolloutSeen& seen);

// Whoever failed waits for its turn again: those whose time it is, or, by an operator, all of them
// and those that the rollout's end kept from beginning.
Task<void> retry_due(postgres::Transaction& tx, const LockedRollout& rollout);
Task<void> retry_all(postgres::Transaction& tx, const LockedRollout& rollout);

}  // namespace flock::services

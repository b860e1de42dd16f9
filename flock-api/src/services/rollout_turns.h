// SPDX-License-Identifier: Apache-2.0
// Who may begin now: those whose maintenance window is open, those with whose label's value not too
// many are down, and those that get another try.
#pragma once

#include "services/rollout_engine.h"

namespace flock::services {

// Parts those that wait by their windows; without windows nothing is looked at.
Task<void> look_at_windows(postgres::Transaction& tx, const LockedRollout& rollout,
                           domain::RolloutSeen& seen);
// Parts those that wait, or are to go back, by the limit of devices that are down; after the
// windows.
Task<void> look_at_down_limit(postgres::Transaction& tx, const LockedRollout& rollout,
                              domain::RolloutSeen& seen);
Task<void> look_at_retries(postgres::Transaction& tx, const LockedRollout& rollout,
                           domain::RolloutSeen& seen);

// `count` devices of the open stage and those before it begin; with `only_online` within windows
// and limits.
Task<void> let_go(postgres::Transaction& tx, const LockedRollout& rollout,
                  const domain::RolloutSeen& seen, std::int64_t count, bool only_online);
// `count` devices go back.
Task<void> take_back(postgres::Transaction& tx, const LockedRollout& rollout,
                     const domain::RolloutSeen& seen, std::int64_t count);

// Whoever failed waits for its turn again: those whose time it is, or, by an operator, all of them
// and those that the rollout's end kept from beginning.
Task<void> retry_due(postgres::Transaction& tx, const LockedRollout& rollout);
Task<void> retry_all(postgres::Transaction& tx, const LockedRollout& rollout);

}  // namespace flock::services

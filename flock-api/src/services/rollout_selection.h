// SPDX-License-Identifier: Apache-2.0
// Who is in a rollout: at its beginning, and who joins later.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "domain/selector.h"
#include "stores/postgres/database.h"
#include "stores/postgres/selection_query.h"

namespace flock::services {

// What a deployment says about whom it is for.
struct Claim {
  domain::Selector selector;
  domain::Rank rank;
  domain::OnConflict on_conflict = domain::OnConflict::kTakeOver;
};
// From a row with the columns of a deployment. Throws Error{kCorrupt}.
Claim stored_claim(const postgres::Row& deployment);

struct OpenRollout {
  std::string id;
  std::optional<std::string> release_version;  // nothing: it only has a host command
  std::string state;
  domain::Rank rank;
};
Task<std::vector<OpenRollout>> open_rollouts(postgres::Transaction& tx, std::string org);
// The claim's devices, but for those of open rollouts with a better claim: they stay where they
// are.
Task<postgres::Selection> selection_of(postgres::Transaction& tx, std::string org, Claim claim);

// The rollout's last stage has begun. Where membership is dynamic, devices that came meanwhile are
// in it from now on, and whoever comes later gets its release.
Task<void> open_to_newcomers(postgres::Transaction& tx, std::string org, std::string deployment,
                             std::string rollout);
// It is taken back: what was there for newcomers before it is there again.
Task<void> close_to_newcomers(postgres::Transaction& tx, std::string org, std::string deployment,
                              std::string rollout);
// Devices that are new or were changed join what stands for them.
Task<void> adopt_changed(postgres::Term term);

}  // namespace flock::services

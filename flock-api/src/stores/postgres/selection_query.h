// SPDX-License-Identifier: Apache-2.0
// Statements about the devices that a deployment is for. Each is one statement, however many
// devices there are; the filter becomes a condition by domain::compile_sql.
#pragma once

#include <string>
#include <vector>

#include "domain/selector.h"
#include "stores/postgres/statement.h"

namespace flock::postgres {

struct Selection {
  OrgId org;
  domain::Selector selector;
  std::vector<std::string> held_by = {};  // open rollouts whose devices are not to be had
};

// `count` of the devices, and `conflicting`: 0, or the count of those that `held_by` have.
Statement selection_count(const Selection& selection, TimePoint now);
// Of each rollout in `held_by` that has some of the devices: rollout_id, count, and up to five
// names (a JSON array).
Statement selection_conflicts(const Selection& selection, TimePoint now);
// Of fleet and list, without the filter: rows of `why` they are not in it (REVOKED, FILTER or
// CONFLICT; "" for those who are), architecture, variant, and how many they are (count), are online
// and have the release already (have_it); `one` and `two` are hashes over their ids.
Statement selection_survey(const Selection& selection, const std::optional<std::string>& release,
                           TimePoint now);
// `name` of up to five of those with this `why`.
Statement selection_examples(const Selection& selection, const std::string& why, TimePoint now);
// Gives every device its place in the rollout and its stage by that: by a hash of rollout and
// device, that is by chance, and the same each time. With a label in `spread_over`, whatever comes
// first by place holds its share of each of the label's values.
Statement rollout_assign(const Selection& selection, const std::string& rollout,
                         const std::string& spread_over, TimePoint now);
// Devices that came to match since then: they wait in the open stage.
Statement rollout_adopt(const Selection& selection, const std::string& rollout, TimePoint now);
// The same for those among `ids`, into a rollout that may have ended, where they begin at once.
// Answers the ids of all that match, whether they join or not.
Statement rollout_newcomers(const Selection& selection, const std::string& rollout,
                            const std::vector<std::string>& ids, TimePoint now);

}  // namespace flock::postgres

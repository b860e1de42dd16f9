// SPDX-License-Identifier: Apache-2.0
// Time series are kept for as many days as their organization says, or the configuration where it
// says nothing.
#pragma once

#include <string>
#include <vector>

#include "stores/postgres/database.h"
#include "stores/time_series/time_series.h"

namespace flock::services {

struct Retention {
  int telemetry_days = 30, logs_days = 14;
};

// How long one organization keeps them.
struct OrgRetention {
  std::string org;
  Retention keep;
};

// What to remove at `now`: what nobody keeps any longer goes of all at once, which costs the store
// next to nothing; then, in groups, of those who keep less.
std::vector<stores::Expiry> plan_expiry(const std::vector<OrgRetention>& all, Retention defaults,
                                        TimePoint now);

// One round over all organizations; the next one goes on where a store that was away ended this.
Task<void> expire_time_series(postgres::Database& db, stores::TimeSeries& time_series,
                              Retention defaults);

}  // namespace flock::services

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "async/scope.h"
#include "crypto/seal.h"
#include "domain/rollout_decide.h"
#include "stores/postgres/database.h"
#include "stores/time_series/time_series.h"
#include "stores/webhooks/webhooks.h"

namespace flock::services {

// What is wrong with gates that look elsewhere and only others can say: a query that ClickHouse
// does not understand, a webhook that may not be called. Pointers are into the strategy, as
// "/gates/0/query". Throws kUnavailable when ClickHouse is needed and away.
Task<std::vector<Problem>> faults_of_gates(const domain::RolloutPlan& plan, std::string org,
                                           stores::TimeSeries& time_series,
                                           stores::WebhookRules rules);

// Looks for gates that look elsewhere, each at its interval, and keeps what it found: the engine
// decides by what was kept, and waits for nobody. Two that do this at once do the same work twice
// and no harm.
class GateChecks {
 public:
  // `found` is called after each check that was kept. Everything must outlive this.
  GateChecks(postgres::Database& db, stores::TimeSeries& time_series,
             const crypto::SealingKeys& keys, stores::WebhookRules rules,
             std::function<void()> found)
      : db_(db),
        time_series_(time_series),
        keys_(keys),
        rules_(std::move(rules)),
        found_(std::move(found)) {}

  // For ever, until it is cancelled.
  Task<void> run();

 private:
  struct Job;
  Task<void> look_for_due(TaskScope& scope);
  // In the background; failures are what the check found.
  Task<void> check(Job job);
  Task<postgres::Rows> reached(const Job& job);
  Task<domain::Check> look(const Job& job, std::string& evidence);
  Task<domain::Check> check_metric(const Job& job);
  Task<domain::Check> check_query(const Job& job);
  Task<domain::Check> check_webhook(const Job& job);
  Task<domain::Check> check_comparison(const Job& job, std::string& evidence);
  Task<void> keep(const Job& job, domain::Check found, std::string evidence);

  postgres::Database& db_;
  stores::TimeSeries& time_series_;
  const crypto::SealingKeys& keys_;
  const stores::WebhookRules rules_;
  std::function<void()> found_;
  std::set<std::pair<std::string, std::size_t>> running_;  // rollout and gate
  std::map<std::string, int> running_of_;                  // by organization
};

}  // namespace flock::services

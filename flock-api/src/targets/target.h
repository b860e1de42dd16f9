// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>

#include "async/scope.h"
#include "async/task.h"
#include "base/error.h"
#include "crypto/keys.h"
#include "crypto/seal.h"
#include "mqtt/client.h"
#include "stores/live_state/live_state.h"
#include "stores/postgres/database.h"
#include "stores/time_series/time_series.h"
#include "stores/webhooks/webhooks.h"
#include "targets/settings.h"

namespace flock::targets {

// What a target is given; all of it is its own, on its own loop.
struct Parts {
  Executor executor;
  const Settings& settings;
  postgres::Database& db;
  stores::LiveState& live;
  stores::TimeSeries& time_series;
  mqtt::Client& bus;
  crypto::Key signing_key;
  // A second connection for what must not stand in the way of reports; null: the bus.
  mqtt::Client* series_bus = nullptr;
  // The name of this process among those that run the same target; "": the only one.
  std::string replica = {};
  // How often the bus was connected so far; unset: not known.
  std::function<std::uint64_t()> connections = {};
  // To be told when a background task ended that nobody starts again: the process ends with it, for
  // a target that only looks alive is worse than none.
  std::function<void(std::exception_ptr)> failed = {};
  // For what is stored sealed; api and scheduler only.
  std::shared_ptr<const crypto::SealingKeys> sealing = {};
};

inline const crypto::SealingKeys& keys_of(const Parts& parts) {
  FLOCK_ASSERT(parts.sealing != nullptr);
  return *parts.sealing;
}

inline stores::WebhookRules webhook_rules(const Settings& settings) {
  return {settings.webhooks_allow_loopback, settings.webhooks_allowed_networks};
}

// One part of the product with its own life. start: can work when it returns. drain: takes no new
// work and finishes what it has. stop: ends the rest; always called after drain.
class Target {
 public:
  virtual ~Target() = default;
  virtual Task<void> start() = 0;
  virtual Task<void> drain() = 0;
  virtual Task<void> stop() = 0;
};

// Hands the failures of `scope` to `failed`, when there is one.
inline void end_with(TaskScope& scope, const std::function<void(std::exception_ptr)>& failed) {
  if (!failed) return;
  scope.on_failure([failed](const std::string&, std::exception_ptr failure) { failed(failure); });
}

std::unique_ptr<Target> make_api_target(Parts parts);
std::unique_ptr<Target> make_ingester_target(Parts parts);
// The last will of the bus of the ingester `replica`.
mqtt::Message ingester_will(const std::string& replica);
std::unique_ptr<Target> make_scheduler_target(Parts parts);
std::unique_ptr<Target> make_audit_target(Parts parts);
std::unique_ptr<Target> make_events_gateway_target(Parts parts);

}  // namespace flock::targets

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/json/object.hpp>
#include <string>

#include "async/task.h"
#include "base/secret.h"
#include "domain/rollout_gate.h"
#include "stores/webhooks/webhooks.h"

namespace flock::stores {

// Asks a service of an operator's what it thinks of a rollout: POST, signed with `key`, without
// following redirects. It answers {"result": "pass" | "fail" | "inconclusive", "reason": "..."};
// whatever else becomes of it is inconclusive, with the reason.
Task<domain::Check> ask_webhook(WebhookRules rules, domain::Gate gate, Secret key,
                                boost::json::object data);

}  // namespace flock::stores

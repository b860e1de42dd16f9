// SPDX-License-Identifier: Apache-2.0
// The gates of a rollout as JSON: as people write them, and with what they found.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "domain/rollout_gate.h"
#include "stores/postgres/database.h"

namespace flock::services {

// Fields of a deployment and its strategy. Faults go to the reader.
Duration read_time(json::Reader& in, const char* key, Duration fallback,
                   Duration most = Duration::max());
std::optional<double> read_number(json::Reader& in, const char* key, double least, double most);

domain::Gate read_gate(json::Reader& in);
boost::json::object gate_json(const domain::Gate& gate);

boost::json::array gates_json(const domain::RolloutPlan& plan,
                              const std::vector<domain::GateView>& views);
// As many as the plan has; those that are not stored yet are fresh.
std::vector<domain::GateView> stored_gates(const std::string& text, std::size_t count);

domain::GateResult gate_result_named(std::string_view name);
// A row of rollout_checks.
domain::Check check_of(const postgres::Row& row);

}  // namespace flock::services

// SPDX-License-Identifier: Apache-2.0
// What the routes of devices share.
#pragma once

#include "domain/device_json.h"
#include "flock/device/v1/device.pb.h"
#include "stores/time_series/time_series.h"
#include "targets/api/call.h"

namespace flock::targets::api {

// What the device says of itself, and what a rollout wants of it: not part of its ETag.
inline constexpr std::string_view kDevicePassing[] = {
    "state",    "last_seen_at",       "reported",     "desired", "agent_version",
    "hardware", "clone_suspected_at", "connectivity", "metrics"};

// A row of the statements for devices, with its report.
bj::object device_json(const Row& row, const std::optional<std::string>& live);
// With the live state, in one round trip for all.
Task<bj::array> devices_json(Context& context, const postgres::Rows& rows);
// By id, or by a name that only one device has. Throws kNotFound or kConflict.
Task<bj::object> find_device(Call& call, std::string id_or_name);
// The same inside a transaction that changes it: locked until its end.
Task<bj::object> find_device_in(postgres::Transaction& tx, Call& call, std::string id_or_name);
// The id of a fleet that the caller sees, by id or slug. Throws kNotFound.
Task<std::string> fleet_id_in(postgres::Transaction& tx, Call& call, std::string id_or_slug);

using domain::command_state;
using domain::device_time;
using domain::exit_json;
using domain::reported_json;

// The newest values of one device: of the machine, and by service.
bj::object latest_json(const std::vector<stores::MetricPoint>& points);

std::string text_of(const bj::object& device, const char* key);
// Who did it, for people.
std::string actor_of(const Call& call);
Task<void> remember(postgres::Transaction& tx, Call& call, std::string device, std::string kind,
                    bj::object detail);

// Member `key`: labels to set. A null value stands in `removed`, where that is allowed. Faults go
// to `in`.
bj::object read_labels(json::Reader& in, const char* key, std::vector<std::string>* removed);
std::vector<std::string> read_label_keys(json::Reader& in, const char* key);
inline constexpr std::size_t kMostLabels = 64;

// Tells the broker to end a device's session and to refuse its tokens for as long as one that was
// issued before can live.
mqtt::Message revocation_message(const Settings& settings, const std::string& device,
                                 std::int64_t revoked_at_ms);

}  // namespace flock::targets::api

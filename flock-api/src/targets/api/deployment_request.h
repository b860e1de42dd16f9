// SPDX-License-Identifier: Apache-2.0
// A deployment as a caller asks for it, to be made or to be planned.
#pragma once

#include <optional>

#include "domain/rollout_plan.h"
#include "flock/device/v1/device.pb.h"
#include "services/rollout_selection.h"
#include "targets/api/call.h"

namespace flock::targets::api {

struct DeploymentRequest {
  std::string release;  // its id or version; "" beside a host command: everybody keeps his own
  std::optional<device::v1::HostCommand> host_command;
  std::string fleet;      // its id or slug; "": none was named
  services::Claim claim;  // but for the fleet, and the id of the deployment
  bool allow_empty = false;
  domain::RolloutPlan plan;
  Duration soak{5000}, failure_timeout{600'000};
  double max_failed_ratio = 1;
  std::string plan_hash;  // of the plan that it must be; "": any
};
// Throws Error{kInvalidArgument} with everything that is wrong.
DeploymentRequest read_deployment(const bj::value& body);

// The release, if there is one, locked against its removal, and the claim of a deployment `id`.
// Throws when release, fleet or devices are not there, or the caller may not name them.
struct ResolvedDeployment {
  std::optional<Row> release;
  services::Claim claim;
};
Task<ResolvedDeployment> resolve(postgres::Transaction& tx, const Call& call,
                                 const DeploymentRequest& request, std::string id);

// {"fleet_id", "device_ids", "filter", "membership"}
bj::object target_json(const domain::Selector& selector);
// Of a row with release_id and release_version: "release", unless there is none.
void set_release(bj::object& out, const Row& row);

}  // namespace flock::targets::api

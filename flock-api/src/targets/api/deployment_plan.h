// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "services/deployment_survey.h"
#include "targets/api/deployment_request.h"

namespace flock::targets::api {

// The same for as long as the deployment would do the same to the same devices: hex SHA-256 of all
// that was asked for, the devices, the conflicts, and the platforms that the release lacks.
std::string plan_hash(const DeploymentRequest& request, const ResolvedDeployment& resolved,
                      const services::Survey& survey);

// Tries what gates that look elsewhere ask for. Throws Error{kInvalidArgument} with the place of
// each fault.
Task<void> check_gates(const Call& call, const domain::RolloutPlan& plan);

}  // namespace flock::targets::api

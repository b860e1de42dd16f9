// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "domain/variables.h"
#include "flock/device/v1/device.pb.h"
#include "workload/workload.h"

namespace flock::domain {

// The digest for a device of `architecture` and `variant` (OCI names) among those an image has; ""
// when there is none. An arm device runs images of a lower variant, nothing else falls back.
std::string digest_for(const std::map<std::string, std::string>& digests,
                       const std::string& architecture, const std::string& variant);

// Brokers and agents take messages of 1 MiB.
inline constexpr std::size_t kDesiredBytes = 1000 * 1024;

// A release for one device, with the variables that are set for it. Throws
// Error{kUnprocessable} naming service and platforms when an image has none for it. Version,
// release and rollout are the caller's to fill.
// Both throw Error{kUnprocessable} when the state is larger than kDesiredBytes.
device::v1::DesiredState make_desired(const workload::Workload& workload,
                                      const std::string& architecture, const std::string& variant,
                                      const std::vector<Variable>& variables = {});

// Gives every service the environment it has now and leaves all else; `workload` is the release of
// `desired`. False when nothing differs.
bool replace_environment(device::v1::DesiredState& desired, const workload::Workload& workload,
                         const std::vector<Variable>& variables);

}  // namespace flock::domain

// SPDX-License-Identifier: Apache-2.0
// Private to this room.
#pragma once

#include "domain/plan.h"

namespace flock::agent {

// By service: changes when a container of it must be made anew.
ConfigHashes hashes_of(const DesiredState& state);
// The same for two states that make the same containers, after the same host command.
std::string fingerprint_of(const DesiredState& state);

}  // namespace flock::agent

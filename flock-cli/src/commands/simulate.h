// SPDX-License-Identifier: Apache-2.0
// `flock devices simulate`: virtual devices in a fleet, run by the program flock-sim.
#pragma once

#include "command.h"

namespace flock::cli {

Verb simulate_verb();

}  // namespace flock::cli

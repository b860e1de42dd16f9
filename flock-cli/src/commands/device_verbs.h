// SPDX-License-Identifier: Apache-2.0
// The verbs of `flock devices` that write about devices and move them through their life.
#pragma once

#include <vector>

#include "command.h"

namespace flock::cli {

std::vector<Verb> device_verbs();
// What a list or an answer of devices shows.
const std::vector<Column>& device_columns();

}  // namespace flock::cli

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace flock {

// True when something follows the first document. YAML::Load() drops it silently, and
// YAML::LoadAll() of yaml-cpp 0.7 never returns for some of it.
bool holds_more_documents(std::string_view yaml);

}  // namespace flock

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "targets/target.h"

namespace flock::runtime {

// The targets that exist. `all` is only the list of them.
struct TargetEntry {
  std::string_view name;
  std::string_view does;
  std::unique_ptr<targets::Target> (*make)(targets::Parts);
  bool seals = false;        // stores secrets, so it is given the keys to seal and open them
  bool time_series = false;  // is told to be worse off while they are away, not unready
};
const std::vector<TargetEntry>& known_targets();
// The wanted ones in the table's order; throws Error{kInvalidArgument} naming an unknown one.
std::vector<const TargetEntry*> plan(const std::vector<std::string>& wanted);

// Runs the targets until SIGTERM or SIGINT, each on its own thread and loop; a target that fails
// ends the process. Returns the exit code.
int run_process(const targets::Settings& settings,
                const std::function<std::string()>& print_config);

// Makes what is missing of device-signing.pem, registry-signing.crt, jwks.json and the first key of
// the folder `sealing`.
void generate_keys(const std::string& directory);
// Another key, which seals from the next start on; the older ones go on opening. Returns its id.
std::string add_sealing_key(const std::string& directory);
// In the directory of keys.
inline constexpr const char* kSealingFolder = "sealing";

}  // namespace flock::runtime

// SPDX-License-Identifier: Apache-2.0
// Compose files (compose-spec) as Flock takes them. What it does not honour is refused by name and
// path, never dropped.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "workload/workload.h"

namespace flock::workload {

struct ComposeResult {
  Workload workload;
  std::vector<Problem> notes;  // accepted with a remark: `logging`, `version`, ...
};

// Throws Error{kInvalidArgument} with every problem at once, each with its place
// ("/services/web/ports/0"). Limits: 256 kB, 100 services, 20,000 YAML nodes after aliases.
// Variables are not interpolated: a release is closed; "$$" is a dollar sign.
ComposeResult parse_compose(std::string_view yaml);

// "64m", "1.5gb", "1024": bytes, powers of 1024. Nothing when it is no size.
std::optional<std::int64_t> parse_bytes(std::string_view text);

}  // namespace flock::workload

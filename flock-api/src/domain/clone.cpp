// SPDX-License-Identifier: Apache-2.0
#include "domain/clone.h"

#include <algorithm>

namespace flock::domain {
namespace {
constexpr std::size_t kBoots = 4;
}

bool suspect_clone(BootHistory& history, std::string_view boot_id, std::int64_t at_ms) {
  if (boot_id.empty()) return false;
  auto& boots = history.boots;
  if (!boots.empty() && boots.back().id == boot_id) return false;
  const auto earlier = std::find_if(boots.begin(), boots.end(),
                                    [&](const auto& boot) { return boot.id == boot_id; });
  const bool back = earlier != boots.end();
  if (back && at_ms <= boots.back().since_ms) return false;
  if (back) boots.erase(earlier);
  boots.push_back({std::string(boot_id), at_ms});
  if (boots.size() > kBoots) boots.erase(boots.begin());
  return back;
}

}  // namespace flock::domain

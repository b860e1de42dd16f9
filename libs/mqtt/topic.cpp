// SPDX-License-Identifier: Apache-2.0
#include "mqtt/bus.h"

namespace flock::mqtt {

void Delivery::ack() {
  if (acknowledge_) std::exchange(acknowledge_, nullptr)();
}

bool topic_matches(std::string_view filter, std::string_view topic) noexcept {
  if (topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#'))) return false;
  for (;;) {
    const std::string_view wanted = filter.substr(0, filter.find('/'));
    if (wanted == "#") return true;
    const std::string_view level = topic.substr(0, topic.find('/'));
    if (wanted != "+" && wanted != level) return false;
    const bool filter_ends = wanted.size() == filter.size(),
               topic_ends = level.size() == topic.size();
    // "a/#" matches "a" too.
    if (topic_ends) return filter_ends || filter.substr(wanted.size()) == "/#";
    if (filter_ends) return false;
    filter.remove_prefix(wanted.size() + 1);
    topic.remove_prefix(level.size() + 1);
  }
}

}  // namespace flock::mqtt

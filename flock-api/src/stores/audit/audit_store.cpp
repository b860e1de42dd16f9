// SPDX-License-Identifier: Apache-2.0
#include "stores/audit/audit_store.h"

namespace flock::stores {

bool matches(const AuditFilter& filter, const audit::Event& event) {
  const auto is = [](const std::string& wanted, const std::string& value) {
    return wanted.empty() || wanted == value;
  };
  return (!filter.from || event.at >= *filter.from) && (!filter.to || event.at < *filter.to) &&
         is(filter.actor, event.actor_id) && is(filter.action, event.action) &&
         is(filter.resource_type, event.resource_type) &&
         is(filter.resource_id, event.resource_id) &&
         (!filter.outcome || *filter.outcome == event.outcome);
}

Task<std::optional<AuditRange>> find_range(AuditStore& store, OrgId org,
                                           std::optional<TimePoint> from,
                                           std::optional<TimePoint> to) {
  std::optional<AuditRange> range;
  if (!from && !to) {
    const audit::Head head = co_await store.head(org);
    if (head.seq > 0) range = AuditRange{1, head.seq};
    co_return range;
  }
  const auto visit = [&](const std::string& text) -> Task<bool> {
    const auto line = audit::glance(text);
    if (line && (!from || line->at >= *from) && (!to || line->at < *to)) {
      if (!range) range = AuditRange{line->seq, line->seq};
      range->last = line->seq;
    }
    co_return true;
  };
  co_await store.walk(org, 1, visit);
  co_return range;
}

}  // namespace flock::stores

// SPDX-License-Identifier: Apache-2.0
// Lists of devices by filter and order (docs/filter.md). The text of a statement comes from the
// field table alone; whatever a caller wrote is one of its parameters.
#pragma once

#include <string>

#include "domain/order.h"
#include "stores/postgres/device_fields.h"
#include "stores/postgres/statement.h"

namespace flock::postgres {

struct DevicePage {
  domain::Filter filter;
  domain::Order order;
  std::optional<domain::CursorKeys> after;  // nothing: the first page
  std::int64_t limit = 50;
};
// Devices with the columns of sql::kDeviceGet, and key0, key1, ...: the cursor's keys.
Statement device_page(const OrgId& org, const DevicePage& page, TimePoint now);
// Puts into the operation `id` what is to be changed: all that match `filter`, and that are among
// `ids` where it is given. Answers total_count.
struct NewOperation {
  std::string id, kind, actor, request;
  std::optional<std::vector<std::string>> fleets;  // what the caller may see
  domain::Filter filter;
  std::optional<std::vector<std::string>> ids;
  std::int64_t limit = 0;
};
Statement operation_insert(const OrgId& org, const NewOperation& operation, TimePoint now);

}  // namespace flock::postgres

// SPDX-License-Identifier: Apache-2.0
// Single devices, read together: requests that come at the same time, from callers who see the same
// rows, share one transaction and one look at the live state.
#pragma once

#include <optional>
#include <string>

#include "async/batcher.h"
#include "stores/postgres/database.h"
#include "targets/target.h"

namespace flock::targets::api {

struct DeviceRead {
  postgres::Scope scope;
  std::string id;
};
struct FoundDevice {
  postgres::Row row;                // sql::kDeviceGet's columns
  std::optional<std::string> live;  // what it reported last
};

class DeviceReads {
 public:
  DeviceReads(Executor executor, postgres::Database& db, stores::LiveState& live);
  // Nothing when `scope` sees no such device. `id` is a UUID.
  Task<std::optional<FoundDevice>> find(postgres::Scope scope, std::string id);

 private:
  Batcher<DeviceRead, std::optional<FoundDevice>> batcher_;  // a lane for each scope
};

}  // namespace flock::targets::api

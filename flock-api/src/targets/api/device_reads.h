// SPDX-License-Identifier: Apache-2.0
// Single devices, read together: requests that come at the same time, from callers who see the same
// rows, share one transaction and one look at the live state.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "stores/postgres/database.h"
#include "targets/target.h"

namespace flock::targets::api {

struct FoundDevice {
  postgres::Row row;                // sql::kDeviceGet's columns
  std::optional<std::string> live;  // what it reported last
  std::string body, etag;           // as getDevice answers
};
using FoundDevicePtr = std::shared_ptr<const FoundDevice>;  // of all who asked for it

class DeviceReads {
 public:
  DeviceReads(Executor executor, postgres::Database& db, stores::LiveState& live);
  ~DeviceReads();
  // Null when `scope` sees no such device. `id` is a UUID.
  Task<FoundDevicePtr> find(postgres::Scope scope, std::string id);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flock::targets::api

// SPDX-License-Identifier: Apache-2.0
// Changes of one device or of a million, by the same statements; and the work that goes on after
// its request was answered.
#pragma once

#include <string>
#include <vector>

#include "stores/postgres/database.h"

namespace flock::services {

struct DeviceChange {
  std::string set_labels = "{}";  // a JSON object
  std::vector<std::string> remove_labels;
  std::string fleet;  // an id; "": stays where it is
  std::string to_json() const;
  static DeviceChange from_json(const std::string& text);
};

// Moves and labels these devices, with a history entry for each that changes. Volumes stay: a move
// changes the fleet only, and what the new fleet runs comes as to any device that is late. Returns
// how many rows were changed, moves and labels counted apart. Throws kUnprocessable when a device
// would have too many labels.
Task<std::int64_t> change_devices(postgres::Transaction& tx, std::string org, std::string actor,
                                  DeviceChange change, std::vector<std::string> ids);

// All of an operation's devices, in the caller's transaction, and its end. False when it is not
// RUNNING or another process has it.
Task<bool> carry_out(postgres::Transaction& tx, std::string org, std::string operation);

// Carries out the oldest RUNNING operation, whole or not at all. False when there is none.
Task<bool> run_next_operation(postgres::Database& db);

}  // namespace flock::services

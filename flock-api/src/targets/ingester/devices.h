// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "domain/clone.h"
#include "domain/presence.h"
#include "domain/uplink.h"
#include "stores/postgres/database.h"

namespace flock::targets::ingester {

// A device as this ingester knows it.
struct Device {
  std::string org, fleet, agent_version;
  Duration silent_after{0};
  domain::Presence presence;
  domain::BootHistory boots;
  domain::Budget budget;
  std::uint64_t step = 0;        // of its update, as told last: a hash
  std::int64_t received_ms = 0;  // of its newest message
  bool asked = false;            // PostgreSQL, since it was forgotten
  bool touched = false;          // heard from since the last sweep
};

// Whose the devices are. What is known stays usable while PostgreSQL is away; the sweep keeps it
// true.
class Devices {
 public:
  explicit Devices(postgres::Database& db) : db_(db) {}

  // Null for a device that is not known, or not there any more.
  Device* find(std::string_view id);
  // Asks for all of `ids` that are not known, in one statement. Throws kUnavailable.
  Task<void> load(std::vector<std::string> ids);
  // Asks again for these, known or not.
  Task<void> reload(std::vector<std::string> ids);
  // What is known of its presence is not true any more; the next load() asks again.
  void forget(std::string_view id);
  // Puts a row of the statements of presence in its place.
  Device& put(const postgres::Row& row);
  // Those heard from since the last call.
  std::vector<std::string> take_touched();

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const noexcept {
      return std::hash<std::string_view>()(text);
    }
  };
  postgres::Database& db_;
  std::unordered_map<std::string, Device, Hash, std::equal_to<>> known_;
};

}  // namespace flock::targets::ingester

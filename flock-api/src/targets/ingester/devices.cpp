// SPDX-License-Identifier: Apache-2.0
#include "targets/ingester/devices.h"

#include <algorithm>
#include <unordered_set>

#include "stores/postgres/presence_statements.h"

namespace flock::targets::ingester {
namespace {
constexpr std::size_t kKnownMost = 200'000;
}

Device* Devices::find(std::string_view id) {
  const auto found = known_.find(id);
  return found == known_.end() ? nullptr : &found->second;
}

Task<void> Devices::load(std::vector<std::string> ids) {
  std::erase_if(ids, [this](const std::string& id) {
    const Device* const known = find(id);
    return known != nullptr && known->asked;
  });
  std::ranges::sort(ids);
  ids.erase(std::ranges::unique(ids).begin(), ids.end());
  if (!ids.empty()) co_await reload(std::move(ids));
}

Task<void> Devices::reload(std::vector<std::string> ids) {
  if (ids.empty()) co_return;
  const auto rows = co_await db_.query(postgres::Scope::system(), postgres::sql::kPresenceGet,
                                       postgres::Params().texts(ids));
  std::unordered_set<std::string_view> there;
  for (const postgres::Row& row : rows.rows) {
    put(row);
    there.insert(row.text("id"));
  }
  for (const std::string& id : ids) {
    if (!there.contains(id)) known_.erase(id);
  }
}

void Devices::forget(std::string_view id) {
  if (Device* const known = find(id)) known->asked = false;
}

Device& Devices::put(const postgres::Row& row) {
  const std::string& id = row.text("id");
  // Everything that is still needed comes back with the device's next message.
  if (known_.size() >= kKnownMost && !known_.contains(id)) known_.clear();
  Device& device = known_[id];
  device.asked = true;
  device.org = row.text("org_id");
  device.fleet = row.text("fleet_id");
  device.agent_version = row.optional_text("agent_version").value_or("");
  device.silent_after = Duration(row.integer("silent_after_ms"));
  device.presence.online = row.boolean("online");
  device.presence.seq = row.integer("presence_seq");
  device.presence.session = row.integer("session_seq");
  device.presence.before = row.integer("session_before");
  return device;
}

std::vector<std::string> Devices::take_touched() {
  std::vector<std::string> ids;
  for (auto& [id, device] : known_) {
    if (std::exchange(device.touched, false)) ids.push_back(id);
  }
  return ids;
}

}  // namespace flock::targets::ingester

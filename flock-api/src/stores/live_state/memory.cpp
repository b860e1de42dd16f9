// SPDX-License-Identifier: Apache-2.0
#include <unordered_map>

#include "stores/live_state/live_state.h"

namespace flock::stores {
namespace {

class MemoryLiveState final : public LiveState {
 public:
  Task<std::vector<bool>> put_reported(std::vector<Report> reports) override {
    std::vector<bool> kept;
    for (Report& report : reports) {
      const auto [at, fresh] = reports_.try_emplace(report.device);
      const bool newer = fresh || report.seq > at->second.seq;
      if (newer) at->second = std::move(report);
      kept.push_back(newer);
    }
    co_return kept;
  }
  Task<std::vector<std::optional<std::string>>> get_reported(
      std::vector<DeviceId> devices) override {
    std::vector<std::optional<std::string>> out;
    for (const DeviceId& device : devices) {
      const auto found = reports_.find(device);
      out.push_back(found == reports_.end() ? std::nullopt : std::optional(found->second.value));
    }
    co_return out;
  }
  Task<void> ping() override { co_return; }

 private:
  std::unordered_map<DeviceId, Report> reports_;
};

}  // namespace

std::unique_ptr<LiveState> make_memory_live_state() { return std::make_unique<MemoryLiveState>(); }

}  // namespace flock::stores

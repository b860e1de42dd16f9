// SPDX-License-Identifier: Apache-2.0
#include <unordered_map>

#include "stores/live_state/live_state.h"

namespace flock::stores {
namespace {

class MemoryLiveState final : public LiveState {
 public:
  Task<std::vector<Put>> put_reported(std::vector<Report> reports) override {
    std::vector<Put> out;
    for (Report& report : reports) {
      Entry& entry = entries_[report.device];
      const bool newer = !entry.report || report.seq > entry.report->seq;
      const bool again =
          !newer && report.seq == entry.report->seq && report.value == entry.report->value;
      if (newer) entry.report = std::move(report);
      out.push_back(newer || again ? Put{true, entry.told} : Put{});
    }
    co_return out;
  }
  Task<void> mark_told(std::vector<Told> told) override {
    for (Told& one : told) entries_[one.device].told = std::move(one.what);
    co_return;
  }
  Task<std::vector<std::optional<std::string>>> get_reported(
      std::vector<DeviceId> devices) override {
    std::vector<std::optional<std::string>> out;
    for (const DeviceId& device : devices) {
      const auto found = entries_.find(device);
      const bool known = found != entries_.end() && found->second.report;
      out.push_back(known ? std::optional(found->second.report->value) : std::nullopt);
    }
    co_return out;
  }
  Task<void> ping() override { co_return; }

 private:
  struct Entry {
    std::optional<Report> report;
    std::string told;
  };
  std::unordered_map<DeviceId, Entry> entries_;
};

}  // namespace

std::unique_ptr<LiveState> make_memory_live_state() { return std::make_unique<MemoryLiveState>(); }

}  // namespace flock::stores

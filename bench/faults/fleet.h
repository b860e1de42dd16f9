// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "faults/device.h"
#include "faults/stack.h"

namespace flock::faults {

struct FleetOptions {
  int devices = 40;
  Duration every{200};  // a round of all of them
  int rounds = 5000;    // more than there will be
  DeviceOptions device = {};
};

// What the backend was told of the devices of one organization, on its internal bus.
class Ears {
 public:
  Ears(Executor executor, const Stack& stack);
  Task<void> open();
  Task<void> close();
  struct Told {
    std::map<int, int> commands;  // by number: how often
    std::map<int, SteadyPoint> first;
    int report = 0;  // the number of the newest report
    std::int64_t seq = 0;
    int offline = 0;
  };
  const Told& of(const std::string& device) { return told_[device]; }
  bool connected() const noexcept { return bus_.connected(); }

 private:
  void hear(const mqtt::Message& message);
  mqtt::Client bus_;
  TaskScope scope_;
  std::map<std::string, Told> told_;
};

// Numbered devices of an organization of their own.
class Fleet {
 public:
  Fleet(Executor executor, const Stack& stack, postgres::Database& db, FleetOptions options);
  Task<void> open();
  // Everybody speaks, until stop().
  Task<void> speak();
  void stop() noexcept { stopping_ = true; }
  // Until the broker has all of it.
  Task<void> all_sent(Duration limit);
  Task<void> close();
  // Another device that says nothing by itself.
  Task<std::unique_ptr<Device>> another();

  int rounds() const noexcept { return rounds_; }
  // What goes to the broker in a second while nothing is wrong.
  double per_second() const;
  const std::vector<std::unique_ptr<Device>>& devices() const noexcept { return devices_; }

  Ears ears;
  const std::string org;

 private:
  Task<std::string> register_device();
  Executor executor_;
  const Stack& stack_;
  postgres::Database& db_;
  const FleetOptions options_;
  testing::TempDir dir_;
  const std::string fleet_, run_;
  std::vector<std::unique_ptr<Device>> devices_;
  int rounds_ = 0, made_ = 0;
  bool stopping_ = false;
};

}  // namespace flock::faults

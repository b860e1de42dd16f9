// SPDX-License-Identifier: Apache-2.0
// Private to this room: what is wanted of this device, and what ran last, on disk.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "domain/plan.h"
#include "link/desired_store.h"

namespace flock::agent {

using StatePtr = std::shared_ptr<const DesiredState>;

class Wishes {
 public:
  // `on_new`: another one counts from now on.
  Wishes(const std::string& data_dir, std::function<void()> on_new);

  // Reads what was stored. Damaged files are moved aside.
  void load();
  // Reconciler::want(); false when it changes nothing.
  bool want(DesiredState fresh, std::function<void()> on_stored);
  // Tries again what could not be stored.
  void store();
  // What runs is complete and becomes what to fall back to.
  void take_as_current(const StatePtr& wanted);

  std::int64_t version() const;  // the newest known, stored or not
  const StatePtr& desired() const { return desired_; }
  const StatePtr& current() const { return current_; }
  const DesiredState* unstored() const { return unstored_.get(); }  // newer than desired(), or null
  const std::string& store_error() const { return store_error_; }

 private:
  DesiredStore desired_store_, current_store_;
  std::function<void()> on_new_;
  StatePtr desired_ = std::make_shared<const DesiredState>(), current_ = desired_;
  StatePtr unstored_;
  std::function<void()> stored_handler_;
  std::string store_error_;
};

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
#include "app/wishes.h"

#include <utility>

#include "base/error.h"
#include "base/log.h"

namespace flock::agent {

Wishes::Wishes(const std::string& data_dir, std::function<void()> on_new)
    : desired_store_(data_dir + "/desired"),
      current_store_(data_dir + "/current"),
      on_new_(std::move(on_new)) {}

void Wishes::load() {
  desired_ = std::make_shared<const DesiredState>(desired_store_.load());
  current_ = std::make_shared<const DesiredState>(current_store_.load());
  // With the newer file damaged, what ran last is still known; the broker has the newer one.
  if (desired_->version() < current_->version()) desired_ = current_;
}

std::int64_t Wishes::version() const {
  return unstored_ ? unstored_->version() : desired_->version();
}

bool Wishes::want(DesiredState fresh, std::function<void()> on_stored) {
  if (fresh.version() <= version()) {
    on_stored();
    return false;
  }
  log::info("a new desired state",
            {{"version", fresh.version()}, {"release", fresh.release_version()}});
  if (unstored_) stored_handler_();
  unstored_ = std::make_shared<const DesiredState>(std::move(fresh));
  stored_handler_ = std::move(on_stored);
  store_error_.clear();
  store();
  return true;
}

void Wishes::store() {
  if (!unstored_) return;
  try {
    desired_store_.save(*unstored_);
  } catch (const Error& error) {
    if (store_error_ != error.describe())
      log::error("cannot store the desired state; what runs is kept until it can be", error);
    store_error_ = error.describe();
    return;
  }
  desired_ = std::move(unstored_);
  unstored_ = nullptr;
  store_error_.clear();
  on_new_();
  stored_handler_();
}

void Wishes::take_as_current(const StatePtr& wanted) {
  current_ = wanted;
  try {
    current_store_.save(*current_);
  } catch (const Error& error) {
    // Costs nothing while its images are here: then it becomes the current one again at start.
    log::warn("cannot store the current state", error);
  }
}

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
#include "app/downloads.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/log.h"

namespace flock::agent {

using device::v1::Service;

Downloads::Downloads(ReconcilerState& state, Credentials credentials)
    : state_(state),
      credentials_(std::move(credentials)),
      pulls_(std::make_unique<TaskScope>(state.executor)) {}

Task<void> Downloads::stop() {
  pulls_->cancel();
  co_await pulls_->join();
}

void Downloads::start(const Service& service) {
  state_.memory[service.name()].pulling = true;
  state_.memory[service.name()].pull_percent = 0;
  image_ = service.image();
  pulls_->spawn("pull", pull(service.name(), service.image()));
}

Task<void> Downloads::pull(std::string service, std::string image) {
  const StatePtr wanted = state_.target();
  bool full = false;
  try {
    PullCredentials credentials = co_await credentials_();
    log::info("pulling", {{"service", service}, {"image", image}});
    const auto progress = [this, service](int percent) { note_progress(service, percent); };
    co_await state_.runtime->pull(image, std::move(credentials), progress);
    state_.memory[service].pulling = false;
    state_.memory[service].pull = {};
  } catch (const Error& error) {
    state_.memory[service].pulling = false;
    if (error.code() == Code::kCancelled) throw;
    full = is_disk_full(error.message());
    if (wanted->version() == state_.target()->version()) note_pull_failure(service, error, full);
  }
  if (full) co_await make_room(*wanted);
  state_.wake.set();
}

void Downloads::note_pull_failure(const std::string& service, const Error& error, bool full) {
  Attempts& attempts = state_.memory[service].pull;
  note_failure(attempts, full ? "no_space" : "image_pull_failed", service + ": " + error.message(),
               steady_now());
  attempts.transient =
      !full && (error.code() == Code::kUnavailable || error.code() == Code::kTimeout);
  log::warn("a download failed; it is tried again", error,
            {{"service", service}, {"attempt", attempts.failures}});
}

// Told in steps, for every step is a report.
void Downloads::note_progress(const std::string& service, int percent) {
  constexpr std::uint32_t kStep = 10;
  Memory& known = state_.memory[service];
  const auto now = static_cast<std::uint32_t>(std::clamp(percent, 0, 100));
  if (now < known.pull_percent + kStep) return;  // never backwards
  known.pull_percent = now - now % kStep;
  ReportedState fresh = state_.report;
  for (auto& state : *fresh.mutable_services())
    if (state.name() == service) state.set_pull_percent(known.pull_percent);
  state_.set_report(std::move(fresh));
}

// Images of releases that are neither wanted, nor running, nor what the device could go back to are
// the only thing that may go.
Task<void> Downloads::make_room(DesiredState keep) {
  keep.MergeFrom(*state_.wishes.current());
  keep.MergeFrom(*state_.trials.proven());
  try {
    co_await state_.runtime->clean_up(std::move(keep));
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    log::debug("cannot make room", error);
  }
}

Task<void> Downloads::drop_unwanted() {
  if (pulls_->size() == 0) co_return;
  const StatePtr target = state_.target();
  const DesiredState& desired = *target;
  const bool wanted =
      std::any_of(desired.services().begin(), desired.services().end(),
                  [&](const Service& service) { return service.image() == image_; });
  if (wanted) co_return;
  pulls_->cancel();
  co_await pulls_->join();
  pulls_ = std::make_unique<TaskScope>(state_.executor);
}

}  // namespace flock::agent

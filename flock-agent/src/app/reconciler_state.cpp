// SPDX-License-Identifier: Apache-2.0
#include "app/reconciler_state.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"

namespace flock::agent {

using device::v1::Service;

ReconcilerState::ReconcilerState(Executor e, std::unique_ptr<Runtime> r,
                                 Trials::Options trial_options,
                                 std::function<void()> report_handler, Ends::Options ends_options)
    : executor(e),
      runtime(std::move(r)),
      wishes(trial_options.data_dir, [this] { begin_anew(); }),
      trials(std::move(trial_options)),
      on_report(std::move(report_handler)),
      wake(e),
      background(e),
      ends(*runtime, background, std::move(ends_options)) {}

void ReconcilerState::begin_anew() {
  for (auto& [name, known] : memory) {
    known.pull = {};
    known.run = {};
    known.restarts = 0;
  }
  settled_since = {};
}

void ReconcilerState::set_report(ReportedState fresh) {
  if (fresh.SerializeAsString() == report.SerializeAsString()) return;
  if (fresh.phase() != report.phase()) {
    log::info("phase", {{"phase", static_cast<int>(fresh.phase())},
                        {"version", fresh.desired_version()},
                        {"error", fresh.error()}});
  }
  report = std::move(fresh);
  on_report();
}

const Service& service_of(const DesiredState& state, const std::string& name) {
  const auto found = std::find_if(state.services().begin(), state.services().end(),
                                  [&](const auto& s) { return s.name() == name; });
  FLOCK_ASSERT(found != state.services().end());
  return *found;
}

bool is_disk_full(const std::string& message) {
  return message.find("no_space") != std::string::npos ||
         is_no_space(message);  // the runtime's word, or ours
}

}  // namespace flock::agent

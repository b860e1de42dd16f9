// SPDX-License-Identifier: Apache-2.0
#include "app/probes.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/log.h"

namespace flock::agent {
namespace {

constexpr Duration kTroublePause{1'000};
constexpr Duration kQuickProbe{500};  // the round waits so long for a probe's answer

}  // namespace

// Most probes answer within the round; a slow one goes on beside it. True when the answer changed
// what is known of the service's health.
Task<bool> Probes::start(Action action, const DesiredState& active, const World& world) {
  const auto container = std::find_if(world.containers.begin(), world.containers.end(),
                                      [&](const Observed& c) { return c.id == action.container; });
  const auto check = check_of(service_of(active, action.service), *container);
  Memory& known = state_.memory[action.service];
  known.probing = true;
  known.probe_late = false;
  known.probe_fails_at = steady_now() + probe_timeout(*check);
  const Health before = known.health;
  answered_.reset();
  waits_for_ = action.container;
  state_.background.spawn("probe", probe(action.service, *container, *check));
  co_await answered_.wait_for(std::min(kQuickProbe, probe_timeout(*check)));
  waits_for_.clear();
  const auto after = state_.memory.find(action.service);
  co_return after == state_.memory.end() || after->second.health != before;
}

Task<void> Probes::probe(std::string service, Observed container, device::v1::HealthCheck check) {
  std::optional<bool> good;
  try {
    good = co_await state_.runtime->probe(container.id);
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    log::debug("a health check could not be made", error, {{"service", service}});
  }
  if (waits_for_ == container.id)
    answered_.set();
  else
    state_.wake.set();
  const auto found = state_.memory.find(service);
  if (found == state_.memory.end() || found->second.container != container.id ||
      found->second.started != container.started)
    co_return;  // it answers for a run that is over
  Memory& known = found->second;
  known.probing = false;
  if (known.probe_late) co_return;
  if (good)
    note_probe(known, check, *good, steady_now());
  else
    known.probe_at = steady_now() + kTroublePause;  // the runtime's failure, not the service's
}

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
#include "app/by_hand.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "async/event.h"
#include "base/error.h"
#include "base/log.h"

namespace flock::agent {
namespace {

using device::v1::Service;

std::set<std::string> volumes_of(const Service& service) {
  std::set<std::string> out;
  for (const auto& mount : service.mounts())
    if (mount.kind() == device::v1::Mount::VOLUME && !mount.source().empty())
      out.insert(mount.source());
  return out;
}

// The services that mount one of the volumes, and those that live in their networks.
std::set<std::string> users_of(const std::set<std::string>& volumes, const DesiredState& state) {
  std::set<std::string> out;
  for (const Service& service : state.services()) {
    const std::set<std::string> own = volumes_of(service);
    if (std::any_of(own.begin(), own.end(), [&](const auto& v) { return volumes.contains(v); }))
      out.insert(service.name());
  }
  for (const Service& service : state.services()) {
    const std::string& mode = service.network_mode();
    if (mode.starts_with("service:") && out.contains(mode.substr(8))) out.insert(service.name());
  }
  return out;
}

}  // namespace

struct ByHand::Job {
  explicit Job(Executor executor, std::function<Task<void>()> w)
      : work(std::move(w)), done(std::move(executor)) {}
  std::function<Task<void>()> work;
  std::exception_ptr failure;
  Event done;
};

Task<void> ByHand::restart(std::string service) {
  co_await between_rounds([this, service] { return do_restart(service); });
}

Task<void> ByHand::purge(std::string service, std::vector<std::string> volumes,
                         std::function<void()> emptied) {
  co_await between_rounds(
      [this, service, volumes, emptied] { return do_purge(service, volumes, emptied); });
}

Task<void> ByHand::take_down(std::function<Task<void>()> then) {
  co_await between_rounds([this, then] { return do_take_down(then); });
}

Task<void> ByHand::between_rounds(std::function<Task<void>()> work) {
  const auto job = std::make_shared<Job>(state_.executor, std::move(work));
  jobs_.push_back(job);
  state_.wake.set();
  co_await job->done.wait();
  if (job->failure) std::rethrow_exception(job->failure);
}

Task<void> ByHand::do_jobs() {
  while (!jobs_.empty()) {
    const auto job = jobs_.front();
    try {
      co_await job->work();
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      job->failure = std::current_exception();
    }
    jobs_.pop_front();
    job->done.set();
  }
}

Task<void> ByHand::do_restart(std::string service) {
  bool found = false;
  for (const Observed& container : co_await state_.runtime->list()) {
    if (container.service != service) continue;
    found = true;
    state_.ends.know(container);
    co_await state_.ends.end(container.id);
    state_.memory[service].run = {};
    co_await state_.runtime->start(container.id);
    state_.ends.started_again(container.id);
    log::info("restarted, as it was asked for", {{"service", service}});
  }
  if (!found) throw Error(Code::kNotFound, "no container of a service " + service + " is here");
}

Task<void> ByHand::do_purge(std::string service, std::vector<std::string> volumes,
                            std::function<void()> emptied) {
  // What runs, or will.
  const Wishes& wishes = state_.wishes;
  const DesiredState state =
      wishes.current()->version() > 0 ? *wishes.current() : *wishes.desired();
  const auto here = std::find_if(state.services().begin(), state.services().end(),
                                 [&](const Service& s) { return s.name() == service; });
  if (here == state.services().end())
    throw Error(Code::kNotFound, "there is no service " + service + " here");
  const std::set<std::string> own = volumes_of(*here);
  std::set<std::string> wanted(volumes.begin(), volumes.end());
  if (wanted.empty()) wanted = own;
  if (wanted.empty())
    throw Error(Code::kUnprocessable, "the service " + service + " has no named volumes");
  for (const std::string& volume : wanted)
    if (!own.contains(volume))
      throw Error(Code::kUnprocessable, "the service " + service + " has no volume " + volume);
  const std::set<std::string> users = users_of(wanted, state);
  for (const Observed& container : co_await state_.runtime->list()) {
    if (!users.contains(container.service)) continue;
    state_.ends.know(container);
    co_await state_.ends.end(container.id);
    co_await state_.runtime->remove(container.id);
    state_.memory[container.service].run = {};
  }
  tell_missing(users);
  for (const std::string& volume : wanted) co_await state_.runtime->remove_volume(volume);
  log::info("volumes are emptied, as it was asked for",
            {{"service", service}, {"volumes", wanted.size()}});
  emptied();
}

// What waits for a service to run again must not see the run that is over.
void ByHand::tell_missing(const std::set<std::string>& services) {
  ReportedState fresh = state_.report;
  for (auto& state : *fresh.mutable_services())
    if (services.contains(state.name())) state.set_state(ServiceState::MISSING);
  state_.set_report(std::move(fresh));
}

Task<void> ByHand::do_take_down(std::function<Task<void>()> then) {
  for (const Observed& container : co_await state_.runtime->list()) {
    state_.ends.know(container);
    co_await state_.ends.end(container.id);
  }
  co_await then();
}

}  // namespace flock::agent

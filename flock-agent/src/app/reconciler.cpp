// SPDX-License-Identifier: Apache-2.0
#include "app/reconciler.h"

#include <algorithm>
#include <set>
#include <utility>

#include "app/by_hand.h"
#include "app/config_hash.h"
#include "app/downloads.h"
#include "app/probes.h"
#include "app/reconciler_state.h"
#include "base/error.h"
#include "base/log.h"
#include "host/machine.h"

namespace flock::agent {
namespace {

using device::v1::Service;

constexpr Duration kTroublePause{1'000};
constexpr Duration kTroubleTell{10'000};  // a runtime that is restarted is nobody's failure

}  // namespace

struct Reconciler::Impl {
  Impl(Executor executor, std::unique_ptr<Runtime> runtime, Options o)
      : options(std::move(o)),
        state(executor, std::move(runtime), trial_options(), options.on_report, ends_options()),
        downloads(state, options.credentials),
        probes(state),
        by_hand(state),
        host(executor, host_options()) {}

  Ends::Options ends_options() {
    return {[this](const std::string& service, const device::v1::Exit& exit) {
              const auto known = state.memory.find(service);
              if (known != state.memory.end()) known->second.last_exit = exit;
              state.wake.set();
            },
            options.on_exit};
  }

  HostCommands::Options host_options() {
    HostCommands::Options out = options.host;
    out.data_dir = options.data_dir;
    out.boot_id = options.boot_id;
    out.on_change = [this] {
      tell_machine();
      state.wake.set();
    };
    out.reboot = [this](std::string id) -> Task<void> {
      co_await options.farewell("the host command of deployment " + id + " wants a reboot");
      const auto restart = [this] {
        return go_down(options.reboot_command, options.host.goes_down);
      };
      co_await by_hand.take_down(restart);
    };
    return out;
  }

  Trials::Options trial_options() const {
    return {options.data_dir, options.boot_id, options.trial, options.goes_back};
  }

  void load() {
    state.wishes.load();
    host.load();
    state.trials.load(state.wishes.current(), steady_now());
    const StatePtr desired = state.wishes.desired();
    // It was ended between the verdict and the first step of the way back.
    if (state.trials.went_back_from(*desired) &&
        state.wishes.current()->version() == desired->version())
      state.wishes.take_as_current(state.target());
  }

  // --- Rounds

  Task<void> run() {
    std::string last_error;
    host.go_on();
    for (;;) {
      state.wake.reset();
      Duration pause = kTroublePause;
      try {
        pause = co_await round();
        last_error.clear();
        trouble_since = {};
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        if (error.describe() != last_error) log::warn("cannot reconcile; trying again", error);
        last_error = error.describe();
        note_trouble(error);
      }
      co_await state.wake.wait_for(pause);
    }
  }

  // Without the runtime nothing can be proven any more, so the old report must not stand.
  void note_trouble(const Error& error) {
    const SteadyPoint now = steady_now();
    state.settled_since = {};
    state.trials.note_blindness(now);
    if (trouble_since == SteadyPoint()) trouble_since = now;
    if (now - trouble_since < kTroubleTell || state.wishes.desired()->version() == 0) return;
    ReportedState fresh = state.report;
    fresh.set_desired_version(state.wishes.desired()->version());
    fresh.set_release_id(state.wishes.desired()->release_id());
    fresh.set_rollout_id(state.wishes.desired()->rollout_id());
    fresh.set_phase(ReportedState::FAILED);
    fresh.set_error_code(is_disk_full(error.message()) ? "no_space" : "runtime_unavailable");
    fresh.set_error("the container runtime: " + error.message());
    state.set_report(std::move(fresh));
  }

  Task<World> observe(const DesiredState& wanted, const DesiredState& before) {
    World world{wanted, before, {}, {}, hashes_of(wanted), hashes_of(before), {}};
    world.containers = co_await state.runtime->list();
    std::set<std::string> images;
    for (const DesiredState* one : {&wanted, &before})
      for (const Service& service : one->services()) images.insert(service.image());
    for (const std::string& image : images) {
      // An image that a container of ours has is there; only others are asked for.
      const std::string digest = image.substr(image.find('@') + 1);
      bool there = std::any_of(world.containers.begin(), world.containers.end(),
                               [&](const Observed& c) { return c.image_digests.contains(digest); });
      if (!there) there = co_await state.runtime->has_image(image);
      if (there) world.images.insert(image);
    }
    world.now = steady_now();
    co_return world;
  }

  // One round; returns how long to wait for the next.
  Task<Duration> round() {
    state.wishes.store();
    co_await downloads.drop_unwanted();
    co_await by_hand.do_jobs();
    state.trials.save_verdict();
    // A newer one may arrive while we wait.
    const StatePtr desired = state.wishes.desired();
    const StatePtr wanted = state.target(), before = state.wishes.current();
    World world = co_await observe(*wanted, *before);
    world.held = wanted == desired && machine_comes_first(*desired);
    options.on_containers(world.containers);
    co_await state.ends.look(world);
    seen = world.containers;
    if (wanted != state.target()) co_return Duration(0);
    Plan plan = make_plan(world, state.memory, state.settled_since);
    if (!plan.settled)
      state.settled_since = {};
    else if (state.settled_since == SteadyPoint() || plan.began_anew)
      state.settled_since = world.now;
    bool stored = true;
    if (wanted != desired && desired->has_host_command()) host.want(desired->host_command(), true);
    if (world.held && plan.fetched) stored = advance_machine(*desired, world.now);
    if (plan.complete && wanted->version() > 0 && before->version() != wanted->version())
      stored = switch_to(wanted, world.now);
    if (!stored) {
      tell(world, plan);
      co_return kTroublePause;
    }
    if (wanted != state.target() || taken_back(*wanted, *before, plan, world.now))
      co_return Duration(0);
    hold(*wanted, plan);
    tell(world, plan);

    bool again = false;
    const DesiredState& active = plan.complete ? *wanted : *before;
    for (const Action& action : plan.actions) {
      again = co_await execute(action, active, world) || again;
      if (wanted != state.target()) co_return Duration(0);
    }
    if (again) co_return Duration(0);
    if (plan.phase == ReportedState::CONFIRMED) co_await keep(wanted);
    co_return pause_after(plan);
  }

  // --- What is done to the machine

  // What was switched to once had its command before.
  bool machine_comes_first(const DesiredState& desired) const {
    if (!desired.has_host_command()) return false;
    const device::v1::HostCommand& command = desired.host_command();
    const device::v1::HostCommand& before = state.wishes.current()->host_command();
    if (before.id() == command.id() && before.undo() == command.undo()) return false;
    const auto standing = host.standing(command.id());
    if (!command.undo()) return standing != HostCommands::Standing::kDone;
    return standing == HostCommands::Standing::kUnknown ||
           standing == HostCommands::Standing::kBusy || standing == HostCommands::Standing::kDone;
  }

  // False while it cannot be written down that `desired` is tried.
  bool advance_machine(const DesiredState& desired, SteadyPoint now) {
    const device::v1::HostCommand& command = desired.host_command();
    if (!command.undo() && !state.trials.begin(desired, now)) return false;
    host.want(command, command.undo());
    state.trials.note_busy(now);
    if (command.undo() || host.standing(command.id()) != HostCommands::Standing::kFailed)
      return true;
    state.trials.reject(desired, state.wishes.current(), host.failure(command.id()));
    state.begin_anew();
    return true;
  }

  // --- What a release is on trial for

  // Nothing of it is started or stopped before that is written down: false while it cannot be.
  bool switch_to(const StatePtr& wanted, SteadyPoint now) {
    if (wanted == state.wishes.desired() && !state.trials.begin(*wanted, now)) return false;
    state.wishes.take_as_current(wanted);
    return true;
  }

  // True when the device goes back from now on.
  bool taken_back(const DesiredState& wanted, const DesiredState& before, const Plan& plan,
                  SteadyPoint now) {
    const bool fails = plan.complete ? state.trials.fails(wanted, plan, state.settled_since, now)
                                     : state.trials.fails_meanwhile(before, now);
    if (!fails) return false;
    state.begin_anew();
    state.wishes.take_as_current(
        state.trials.fallback(plan.complete ? wanted.version() : before.version()));
    return true;
  }

  // A release that may have cut the device off is confirmed only when the server heard of it.
  void hold(const DesiredState& wanted, Plan& plan) {
    if (plan.phase != ReportedState::CONFIRMED ||
        state.trials.may_be_confirmed(wanted, state.settled_since))
      return;
    plan.phase = ReportedState::SOAKING;
    options.on_report();  // asks for an acknowledgement
  }

  // What is confirmed is what the device goes back to from now on; images of others may go.
  Task<void> keep(StatePtr wanted) {
    const bool is_wish = wanted == state.wishes.desired();
    if ((is_wish && !state.trials.confirm(wanted)) || cleaned == wanted->version()) co_return;
    cleaned = wanted->version();
    co_await state.runtime->clean_up(*wanted);
  }

  Duration pause_after(const Plan& plan) const {
    SteadyPoint next = plan.wake_at;
    for (const auto& [name, known] : state.memory) {
      if (known.container.empty() || known.probe_at == SteadyPoint()) continue;
      if (known.health == Health::kNone) continue;
      next = std::min(next,
                      known.probing && !known.probe_late ? known.probe_fails_at : known.probe_at);
    }
    const SteadyPoint now = steady_now();
    if (next <= now) return Duration(1);
    return std::min(options.interval,
                    std::chrono::duration_cast<Duration>(next - now) + Duration(1));
  }

  void tell(const World& world, const Plan& plan) {
    ReportedState fresh = make_report(world, plan, state.memory);
    const StatePtr desired = state.wishes.desired();
    if (state.target() != desired) state.trials.describe(*desired, fresh);
    if (desired->has_host_command()) describe_machine(desired->host_command(), fresh);
    std::string fault = state.trials.store_error();
    if (const DesiredState* const unstored = state.wishes.unstored()) {
      fresh.set_desired_version(unstored->version());
      fresh.set_release_id(unstored->release_id());
      fresh.set_rollout_id(unstored->rollout_id());
      fault = state.wishes.store_error();
    }
    if (!fault.empty()) {
      fresh.set_phase(ReportedState::FAILED);
      fresh.set_error_code(is_disk_full(fault) ? "no_space" : "store_failed");
      fresh.set_error("the desired state cannot be stored on this device: " + fault);
    }
    state.set_report(std::move(fresh));
  }

  // At once, for the next round may come only after the machine went down.
  void tell_machine() {
    const DesiredState& desired = *state.wishes.desired();
    if (!desired.has_host_command() || state.report.desired_version() != desired.version()) return;
    ReportedState fresh = state.report;
    host.describe(desired.host_command().id(), fresh);
    state.set_report(std::move(fresh));
  }

  void describe_machine(const device::v1::HostCommand& command, ReportedState& report) const {
    host.describe(command.id(), report);
    if (!command.undo() || host.standing(command.id()) != HostCommands::Standing::kUndoFailed)
      return;
    const Failure failure = host.failure(command.id());
    report.set_phase(ReportedState::FAILED);
    report.set_error_code(failure.code);
    report.set_error(failure.error);
  }

  // --- Actions

  // True when the next round should follow at once.
  Task<bool> execute(Action action, const DesiredState& active, const World& world) {
    switch (action.kind) {
      case ActionKind::kPull:
        downloads.start(service_of(world.desired, action.service));
        co_return false;
      case ActionKind::kRemove:
        log::info("removing a container",
                  {{"service", action.service}, {"container", action.container}});
        co_await state.ends.end(action.container);
        co_await state.runtime->remove(action.container);
        co_return true;
      case ActionKind::kCreate:
      case ActionKind::kStart:
        co_await bring_up(action, active, world);
        co_return true;
      case ActionKind::kProbe:
        co_return co_await probes.start(action, active, world);
    }
    co_return false;
  }

  Task<void> bring_up(Action action, const DesiredState& active, const World& world) {
    const Service& service = service_of(active, action.service);
    const StatePtr wanted = state.target();
    const char* step = "start_failed";
    try {
      std::string id = action.container;
      if (action.kind == ActionKind::kCreate) {
        step = "create_failed";
        const auto& hashes =
            &active == &world.desired ? world.desired_hashes : world.current_hashes;
        id = co_await state.runtime->create(service, active, hashes.at(action.service));
        step = "start_failed";
      } else {
        count_restart(action, world);
      }
      co_await state.runtime->start(id);
      state.ends.started(id);
      log::info("started", {{"service", action.service}, {"container", id}});
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      if (wanted != state.target()) co_return;  // nobody wants to know any more
      Attempts& attempts = state.memory[action.service].run;
      const bool full = is_disk_full(error.message());
      note_failure(attempts, full ? "no_space" : step, action.service + ": " + error.message(),
                   steady_now());
      attempts.transient =
          !full && (error.code() == Code::kUnavailable || error.code() == Code::kTimeout);
      log::warn("a step failed; it is tried again", error,
                {{"service", action.service}, {"step", step}, {"attempt", attempts.failures}});
    }
  }

  // An end that was not wanted counts as a failure until the service has run for a while.
  void count_restart(const Action& action, const World& world) {
    const auto container =
        std::find_if(world.containers.begin(), world.containers.end(),
                     [&](const Observed& c) { return c.id == action.container; });
    if (container == world.containers.end() || container->run != Run::kExited) return;
    Memory& known = state.memory[action.service];
    ++known.restarts;
    const std::string code = known.run.error_code, error = known.run.error;
    note_failure(known.run, code, error, steady_now());
  }

  Options options;
  ReconcilerState state;
  Downloads downloads;
  Probes probes;
  ByHand by_hand;
  HostCommands host;
  SteadyPoint trouble_since{};
  std::int64_t cleaned = 0;  // images of other versions than this one are gone
  std::vector<Observed> seen;
};

Reconciler::Reconciler(Executor executor, std::unique_ptr<Runtime> runtime, Options options)
    : impl_(std::make_unique<Impl>(std::move(executor), std::move(runtime), std::move(options))) {}
Reconciler::~Reconciler() = default;
void Reconciler::load() { impl_->load(); }
std::int64_t Reconciler::version() const { return impl_->state.wishes.version(); }
void Reconciler::want(DesiredState fresh, std::function<void()> on_stored) {
  if (impl_->state.wishes.want(std::move(fresh), std::move(on_stored))) impl_->state.wake.set();
}
Task<void> Reconciler::run() { co_await impl_->run(); }
Task<void> Reconciler::stop() {
  impl_->state.background.cancel();
  co_await impl_->downloads.stop();
  co_await impl_->host.stop();
  co_await impl_->state.background.join();
}
const ReportedState& Reconciler::report() const { return impl_->state.report; }
void Reconciler::note_contact(bool there) {
  impl_->state.trials.note_contact(there, steady_now());
  if (there && impl_->state.trials.open()) impl_->state.wake.set();
}
const std::vector<Observed>& Reconciler::containers() const { return impl_->seen; }
Task<void> Reconciler::restart(std::string service) {
  co_await impl_->by_hand.restart(std::move(service));
}
Task<void> Reconciler::purge(std::string service, std::vector<std::string> volumes,
                             std::function<void()> emptied) {
  co_await impl_->by_hand.purge(std::move(service), std::move(volumes), std::move(emptied));
}
Task<void> Reconciler::take_down(std::function<Task<void>()> then) {
  co_await impl_->by_hand.take_down(std::move(then));
}

}  // namespace flock::agent

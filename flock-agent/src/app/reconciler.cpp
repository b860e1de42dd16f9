// SPDX-License-Identifier: Apache-2.0
#include "app/reconciler.h"

#include <algorithm>
#include <deque>
#include <set>

#include "app/ends.h"
#include "async/event.h"
#include "async/scope.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "crypto/keys.h"
#include "link/desired_store.h"

namespace flock::agent {
namespace {

using device::v1::Service;
using StatePtr = std::shared_ptr<const DesiredState>;

constexpr Duration kTroublePause{1'000};
constexpr Duration kTroubleTell{10'000};  // a runtime that is restarted is nobody's failure
constexpr Duration kQuickProbe{500};      // the round waits so long for a probe's answer

const Service& service_of(const DesiredState& state, const std::string& name) {
  const auto found = std::find_if(state.services().begin(), state.services().end(),
                                  [&](const auto& s) { return s.name() == name; });
  FLOCK_ASSERT(found != state.services().end());
  return *found;
}

// Everything that makes a container what it is, its networks included. Maps have no order in
// protobuf's lite form, so the hash walks a sorted copy of them.
std::string config_hash(const Service& service, const DesiredState& state) {
  Service plain = service;
  plain.clear_environment();
  plain.clear_labels();
  std::string text = plain.SerializeAsString();
  for (const auto* map : {&service.environment(), &service.labels()}) {
    const std::map<std::string, std::string> sorted(map->begin(), map->end());
    for (const auto& [key, value] : sorted) text += key + '\0' + value + '\0';
    text += '\1';
  }
  if (service.networks().empty() && service.network_mode().empty() && state.services_size() > 1)
    text += "default network";
  for (const auto& network : state.networks()) {
    const auto& joined = service.networks();
    if (network.internal() &&
        std::find(joined.begin(), joined.end(), network.name()) != joined.end())
      text += network.name() + " is internal";
  }
  return to_hex(crypto::sha256(text)).substr(0, 24);
}

ConfigHashes hashes_of(const DesiredState& state) {
  ConfigHashes out;
  for (const Service& service : state.services()) out[service.name()] = config_hash(service, state);
  return out;
}

bool is_disk_full(const std::string& message) {
  return message.find("no_space") != std::string::npos ||
         is_no_space(message);  // the runtime's word, or ours
}

// Something asked for by hand, to be done between two rounds.
struct Job {
  explicit Job(Executor executor, std::function<Task<void>()> w)
      : work(std::move(w)), done(std::move(executor)) {}
  std::function<Task<void>()> work;
  std::exception_ptr failure;
  Event done;
};

SteadyPoint steady_now() { return std::chrono::steady_clock::now(); }

}  // namespace

struct Reconciler::Impl {
  Impl(Executor e, std::unique_ptr<Runtime> r, Options o)
      : executor(e),
        runtime(std::move(r)),
        options(std::move(o)),
        desired_store(options.data_dir + "/desired"),
        current_store(options.data_dir + "/current"),
        wake(e),
        probed(e),
        background(e),
        ends(*runtime, background, ends_options()),
        pulls(std::make_unique<TaskScope>(e)) {}

  Ends::Options ends_options() {
    return {[this](const std::string& service, const device::v1::Exit& exit) {
              const auto known = memory.find(service);
              if (known != memory.end()) known->second.last_exit = exit;
              wake.set();
            },
            options.on_exit};
  }

  void load() {
    desired = std::make_shared<const DesiredState>(desired_store.load());
    current = std::make_shared<const DesiredState>(current_store.load());
    // With the newer file damaged, what ran last is still known; the broker has the newer one.
    if (desired->version() < current->version()) desired = current;
  }

  // --- What is wanted

  std::int64_t version() const { return unstored ? unstored->version() : desired->version(); }

  void want(DesiredState fresh, std::function<void()> on_stored) {
    if (fresh.version() <= version()) return on_stored();
    log::info("a new desired state",
              {{"version", fresh.version()}, {"release", fresh.release_version()}});
    if (unstored) stored_handler();
    unstored = std::make_shared<const DesiredState>(std::move(fresh));
    stored_handler = std::move(on_stored);
    store_error.clear();
    try_store();
    wake.set();
  }

  void try_store() {
    try {
      desired_store.save(*unstored);
    } catch (const Error& error) {
      if (store_error != error.describe())
        log::error("cannot store the desired state; what runs is kept until it can be", error);
      store_error = error.describe();
      return;
    }
    desired = std::move(unstored);
    unstored = nullptr;
    store_error.clear();
    for (auto& [name, known] : memory) {
      known.pull = {};
      known.run = {};
      known.restarts = 0;
    }
    settled_since = {};
    stored_handler();
  }

  void take_as_current(const StatePtr& wanted) {
    current = wanted;
    try {
      current_store.save(*current);
    } catch (const Error& error) {
      // Costs nothing while its images are here: then it becomes the current one again at start.
      log::warn("cannot store the current state", error);
    }
  }

  // --- Rounds

  Task<void> run() {
    std::string last_error;
    for (;;) {
      wake.reset();
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
      co_await wake.wait_for(pause);
    }
  }

  // Without the runtime nothing can be proven any more, so the old report must not stand.
  void note_trouble(const Error& error) {
    const SteadyPoint now = steady_now();
    settled_since = {};
    if (trouble_since == SteadyPoint()) trouble_since = now;
    if (now - trouble_since < kTroubleTell || desired->version() == 0) return;
    ReportedState fresh = report;
    fresh.set_desired_version(desired->version());
    fresh.set_release_id(desired->release_id());
    fresh.set_rollout_id(desired->rollout_id());
    fresh.set_phase(ReportedState::FAILED);
    fresh.set_error_code(is_disk_full(error.message()) ? "no_space" : "runtime_unavailable");
    fresh.set_error("the container runtime: " + error.message());
    set_report(std::move(fresh));
  }

  Task<World> observe(const DesiredState& wanted, const DesiredState& before) {
    World world{wanted, before, {}, {}, hashes_of(wanted), hashes_of(before), {}};
    world.containers = co_await runtime->list();
    std::set<std::string> images;
    for (const DesiredState* state : {&wanted, &before})
      for (const Service& service : state->services()) images.insert(service.image());
    for (const std::string& image : images) {
      // An image that a container of ours has is there; only others are asked for.
      const std::string digest = image.substr(image.find('@') + 1);
      bool there = std::any_of(world.containers.begin(), world.containers.end(),
                               [&](const Observed& c) { return c.image_digests.contains(digest); });
      if (!there) there = co_await runtime->has_image(image);
      if (there) world.images.insert(image);
    }
    world.now = steady_now();
    co_return world;
  }

  // One round; returns how long to wait for the next.
  Task<Duration> round() {
    if (unstored) try_store();
    co_await drop_unwanted_pulls();
    co_await do_jobs();
    const StatePtr wanted = desired, before = current;  // a newer one may arrive while we wait
    const World world = co_await observe(*wanted, *before);
    options.on_containers(world.containers);
    co_await ends.look(world);
    seen = world.containers;
    if (wanted != desired) co_return Duration(0);
    const Plan plan = make_plan(world, memory, settled_since);
    if (!plan.settled)
      settled_since = {};
    else if (settled_since == SteadyPoint() || plan.began_anew)
      settled_since = world.now;
    tell(world, plan);
    if (plan.complete && wanted->version() > 0 && current->version() != wanted->version())
      take_as_current(wanted);

    bool again = false;
    const DesiredState& active = plan.complete ? *wanted : *before;
    for (const Action& action : plan.actions) {
      again = co_await execute(action, active, world) || again;
      if (wanted != desired) co_return Duration(0);
    }
    if (again) co_return Duration(0);
    if (plan.phase == ReportedState::CONFIRMED && cleaned != wanted->version()) {
      cleaned = wanted->version();
      co_await runtime->clean_up(*wanted);
    }
    co_return pause_after(plan);
  }

  Duration pause_after(const Plan& plan) const {
    SteadyPoint next = plan.wake_at;
    for (const auto& [name, known] : memory) {
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
    ReportedState fresh = make_report(world, plan, memory);
    if (unstored) {
      fresh.set_desired_version(unstored->version());
      fresh.set_release_id(unstored->release_id());
      fresh.set_rollout_id(unstored->rollout_id());
      fresh.set_phase(ReportedState::FAILED);
      fresh.set_error_code(is_disk_full(store_error) ? "no_space" : "store_failed");
      fresh.set_error("the desired state cannot be stored on this device: " + store_error);
    }
    set_report(std::move(fresh));
  }

  void set_report(ReportedState fresh) {
    if (fresh.SerializeAsString() == report.SerializeAsString()) return;
    if (fresh.phase() != report.phase()) {
      log::info("phase", {{"phase", static_cast<int>(fresh.phase())},
                          {"version", fresh.desired_version()},
                          {"error", fresh.error()}});
    }
    report = std::move(fresh);
    options.on_report();
  }

  // --- What is asked for by hand

  Task<void> between_rounds(std::function<Task<void>()> work) {
    const auto job = std::make_shared<Job>(executor, std::move(work));
    jobs.push_back(job);
    wake.set();
    co_await job->done.wait();
    if (job->failure) std::rethrow_exception(job->failure);
  }

  Task<void> do_jobs() {
    while (!jobs.empty()) {
      const auto job = jobs.front();
      try {
        co_await job->work();
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        job->failure = std::current_exception();
      }
      jobs.pop_front();
      job->done.set();
    }
  }

  const DesiredState& active() const { return current->version() > 0 ? *current : *desired; }

  Task<void> restart(std::string service) {
    bool found = false;
    for (const Observed& container : co_await runtime->list()) {
      if (container.service != service) continue;
      found = true;
      ends.know(container);
      co_await ends.end(container.id);
      memory[service].run = {};
      co_await runtime->start(container.id);
      ends.started_again(container.id);
      log::info("restarted, as it was asked for", {{"service", service}});
    }
    if (!found) throw Error(Code::kNotFound, "no container of a service " + service + " is here");
  }

  Task<void> purge(std::string service, std::vector<std::string> volumes,
                   std::function<void()> emptied) {
    const DesiredState state = active();
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
    for (const Observed& container : co_await runtime->list()) {
      if (!users.contains(container.service)) continue;
      ends.know(container);
      co_await ends.end(container.id);
      co_await runtime->remove(container.id);
      memory[container.service].run = {};
    }
    tell_missing(users);
    for (const std::string& volume : wanted) co_await runtime->remove_volume(volume);
    log::info("volumes are emptied, as it was asked for",
              {{"service", service}, {"volumes", wanted.size()}});
    emptied();
  }

  // What waits for a service to run again must not see the run that is over.
  void tell_missing(const std::set<std::string>& services) {
    ReportedState fresh = report;
    for (auto& state : *fresh.mutable_services())
      if (services.contains(state.name())) state.set_state(ServiceState::MISSING);
    set_report(std::move(fresh));
  }

  static std::set<std::string> volumes_of(const Service& service) {
    std::set<std::string> out;
    for (const auto& mount : service.mounts())
      if (mount.kind() == device::v1::Mount::VOLUME && !mount.source().empty())
        out.insert(mount.source());
    return out;
  }

  // The services that mount one of the volumes, and those that live in their networks.
  static std::set<std::string> users_of(const std::set<std::string>& volumes,
                                        const DesiredState& state) {
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

  Task<void> take_down(std::function<Task<void>()> then) {
    for (const Observed& container : co_await runtime->list()) {
      ends.know(container);
      co_await ends.end(container.id);
    }
    co_await then();
  }

  // --- Actions

  // True when the next round should follow at once.
  Task<bool> execute(Action action, const DesiredState& active, const World& world) {
    switch (action.kind) {
      case ActionKind::kPull:
        start_pull(service_of(world.desired, action.service));
        co_return false;
      case ActionKind::kRemove:
        log::info("removing a container",
                  {{"service", action.service}, {"container", action.container}});
        co_await ends.end(action.container);
        co_await runtime->remove(action.container);
        co_return true;
      case ActionKind::kCreate:
      case ActionKind::kStart:
        co_await bring_up(action, active, world);
        co_return true;
      case ActionKind::kProbe:
        co_return co_await probe_for_a_moment(action, active, world);
    }
    co_return false;
  }

  Task<void> bring_up(Action action, const DesiredState& active, const World& world) {
    const Service& service = service_of(active, action.service);
    const StatePtr wanted = desired;
    const char* step = "start_failed";
    try {
      std::string id = action.container;
      if (action.kind == ActionKind::kCreate) {
        step = "create_failed";
        const auto& hashes =
            &active == &world.desired ? world.desired_hashes : world.current_hashes;
        id = co_await runtime->create(service, active, hashes.at(action.service));
        step = "start_failed";
      } else {
        count_restart(action, world);
      }
      co_await runtime->start(id);
      ends.started(id);
      log::info("started", {{"service", action.service}, {"container", id}});
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      if (wanted != desired) co_return;  // nobody wants to know any more
      Attempts& attempts = memory[action.service].run;
      note_failure(attempts, is_disk_full(error.message()) ? "no_space" : step,
                   action.service + ": " + error.message(), steady_now());
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
    Memory& known = memory[action.service];
    ++known.restarts;
    const std::string code = known.run.error_code, error = known.run.error;
    note_failure(known.run, code, error, steady_now());
  }

  void start_pull(const Service& service) {
    memory[service.name()].pulling = true;
    memory[service.name()].pull_percent = 0;
    pulling_image = service.image();
    pulls->spawn("pull", pull(service.name(), service.image()));
  }

  Task<void> pull(std::string service, std::string image) {
    const StatePtr wanted = desired;
    bool full = false;
    try {
      PullCredentials credentials = co_await options.credentials();
      log::info("pulling", {{"service", service}, {"image", image}});
      const auto progress = [this, service](int percent) { note_progress(service, percent); };
      co_await runtime->pull(image, std::move(credentials), progress);
      memory[service].pulling = false;
      memory[service].pull = {};
    } catch (const Error& error) {
      memory[service].pulling = false;
      if (error.code() == Code::kCancelled) throw;
      full = is_disk_full(error.message());
      if (wanted->version() == desired->version()) note_pull_failure(service, error, full);
    }
    if (full) co_await make_room(*wanted);
    wake.set();
  }

  void note_pull_failure(const std::string& service, const Error& error, bool full) {
    Attempts& attempts = memory[service].pull;
    note_failure(attempts, full ? "no_space" : "image_pull_failed",
                 service + ": " + error.message(), steady_now());
    attempts.transient =
        !full && (error.code() == Code::kUnavailable || error.code() == Code::kTimeout);
    log::warn("a download failed; it is tried again", error,
              {{"service", service}, {"attempt", attempts.failures}});
  }

  // Told in steps, for every step is a report.
  void note_progress(const std::string& service, int percent) {
    constexpr std::uint32_t kStep = 10;
    Memory& known = memory[service];
    const auto now = static_cast<std::uint32_t>(std::clamp(percent, 0, 100));
    if (now < known.pull_percent + kStep) return;  // never backwards
    known.pull_percent = now - now % kStep;
    ReportedState fresh = report;
    for (auto& state : *fresh.mutable_services())
      if (state.name() == service) state.set_pull_percent(known.pull_percent);
    set_report(std::move(fresh));
  }

  // Images of releases that are neither wanted nor running are the only thing that may go.
  Task<void> make_room(DesiredState keep) {
    keep.MergeFrom(*current);
    try {
      co_await runtime->clean_up(std::move(keep));
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      log::debug("cannot make room", error);
    }
  }

  Task<void> drop_unwanted_pulls() {
    if (pulls->size() == 0) co_return;
    const bool wanted =
        std::any_of(desired->services().begin(), desired->services().end(),
                    [&](const Service& service) { return service.image() == pulling_image; });
    if (wanted) co_return;
    pulls->cancel();
    co_await pulls->join();
    pulls = std::make_unique<TaskScope>(executor);
  }

  // Most probes answer within the round; a slow one goes on beside it. True when the answer changed
  // what is known of the service's health.
  Task<bool> probe_for_a_moment(Action action, const DesiredState& active, const World& world) {
    const auto container =
        std::find_if(world.containers.begin(), world.containers.end(),
                     [&](const Observed& c) { return c.id == action.container; });
    const auto check = check_of(service_of(active, action.service), *container);
    Memory& known = memory[action.service];
    known.probing = true;
    known.probe_late = false;
    known.probe_fails_at = steady_now() + probe_timeout(*check);
    const Health before = known.health;
    probed.reset();
    waits_for_probe = action.container;
    background.spawn("probe", probe(action.service, *container, *check));
    co_await probed.wait_for(std::min(kQuickProbe, probe_timeout(*check)));
    waits_for_probe.clear();
    const auto after = memory.find(action.service);
    co_return after == memory.end() || after->second.health != before;
  }

  Task<void> probe(std::string service, Observed container, device::v1::HealthCheck check) {
    std::optional<bool> good;
    try {
      good = co_await runtime->probe(container.id);
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      log::debug("a health check could not be made", error, {{"service", service}});
    }
    if (waits_for_probe == container.id)
      probed.set();
    else
      wake.set();
    const auto found = memory.find(service);
    if (found == memory.end() || found->second.container != container.id ||
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

  Executor executor;
  std::unique_ptr<Runtime> runtime;
  Options options;
  DesiredStore desired_store, current_store;
  StatePtr desired = std::make_shared<const DesiredState>(), current = desired;
  StatePtr unstored;  // newer than `desired`, and not on disk yet
  std::function<void()> stored_handler;
  std::string store_error;
  ReportedState report;
  std::map<std::string, Memory> memory;
  SteadyPoint settled_since{}, trouble_since{};
  std::int64_t cleaned = 0;
  std::vector<Observed> seen;
  std::deque<std::shared_ptr<Job>> jobs;
  std::string pulling_image, waits_for_probe;
  Event wake, probed;
  TaskScope background;  // probes, and looking into ends
  Ends ends;
  std::unique_ptr<TaskScope> pulls;  // at most one
};

Reconciler::Reconciler(Executor executor, std::unique_ptr<Runtime> runtime, Options options)
    : impl_(std::make_unique<Impl>(std::move(executor), std::move(runtime), std::move(options))) {}
Reconciler::~Reconciler() = default;
void Reconciler::load() { impl_->load(); }
std::int64_t Reconciler::version() const { return impl_->version(); }
void Reconciler::want(DesiredState fresh, std::function<void()> on_stored) {
  impl_->want(std::move(fresh), std::move(on_stored));
}
Task<void> Reconciler::run() { co_await impl_->run(); }
Task<void> Reconciler::stop() {
  impl_->background.cancel();
  impl_->pulls->cancel();
  co_await impl_->background.join();
  co_await impl_->pulls->join();
}
const ReportedState& Reconciler::report() const { return impl_->report; }
const std::vector<Observed>& Reconciler::containers() const { return impl_->seen; }
Task<void> Reconciler::restart(std::string service) {
  Impl* impl = impl_.get();
  co_await impl->between_rounds([impl, service] { return impl->restart(service); });
}
Task<void> Reconciler::purge(std::string service, std::vector<std::string> volumes,
                             std::function<void()> emptied) {
  Impl* impl = impl_.get();
  co_await impl->between_rounds(
      [impl, service, volumes, emptied] { return impl->purge(service, volumes, emptied); });
}
Task<void> Reconciler::take_down(std::function<Task<void>()> then) {
  Impl* impl = impl_.get();
  co_await impl->between_rounds([impl, then] { return impl->take_down(then); });
}

}  // namespace flock::agent

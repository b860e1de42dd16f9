// SPDX-License-Identifier: Apache-2.0
#include "domain/plan.h"

#include <algorithm>

namespace flock::agent {
namespace {

using device::v1::Dependency;
using device::v1::Restart;
using device::v1::Service;

constexpr int kTellAfter = 3;  // failed attempts before the release counts as failed
// A registry or network that is away for less than this is nobody's failure.
constexpr Duration kTransientTell{60'000};
constexpr Duration kStable{60'000};  // a service that ran so long has its crashes forgiven

std::string digest_of(const std::string& image) {
  const std::size_t at = image.find('@');
  return at == std::string::npos ? "" : image.substr(at + 1);
}

const Service* find_service(const DesiredState& state, const std::string& name) {
  for (const Service& service : state.services()) {
    if (service.name() == name) return &service;
  }
  return nullptr;
}

bool matches(const Observed& container, const Service* service, const ConfigHashes& hashes) {
  if (service == nullptr) return false;
  const auto hash = hashes.find(service->name());
  return hash != hashes.end() && container.config_hash == hash->second &&
         container.image_digests.contains(digest_of(service->image()));
}

bool restarts_always(const Service& service) {
  return service.restart().policy() == Restart::ALWAYS ||
         service.restart().policy() == Restart::UNLESS_STOPPED;
}

// The services whose containers must be there before this one's.
std::vector<std::string> needs_of(const Service& service) {
  std::vector<std::string> out;
  for (const Dependency& dependency : service.depends_on()) out.push_back(dependency.service());
  if (service.network_mode().starts_with("service:"))
    out.push_back(service.network_mode().substr(8));
  return out;
}

class Planner {
 public:
  Planner(const World& world, std::map<std::string, Memory>& memory)
      : world_(world), memory_(memory) {}

  Plan run(SteadyPoint settled_since) {
    std::erase_if(memory_, [&](const auto& item) {
      return find_service(world_.desired, item.first) == nullptr &&
             find_service(world_.current, item.first) == nullptr;
    });
    if (world_.desired.version() == 0) return plan_;
    plan_.fetched = pull();
    plan_.complete = plan_.fetched && !world_.held;
    active_ = plan_.complete ? &world_.desired : &world_.current;
    hashes_ = plan_.complete ? &world_.desired_hashes : &world_.current_hashes;
    // Nothing is known of what ran before (a damaged file): it is left alone until it can be
    // replaced.
    if (active_->version() > 0) remove_unwanted();
    for (const Service& service : active_->services())
      if (!advance(service) && plan_.waits_for.empty()) plan_.waits_for = service.name();
    const bool acts = std::any_of(plan_.actions.begin(), plan_.actions.end(),
                                  [](const Action& a) { return a.kind != ActionKind::kProbe; });
    plan_.settled = plan_.complete && plan_.waits_for.empty() && !acts;
    judge(settled_since);
    return plan_;
  }

 private:
  const Observed* find(const std::string& name) const {
    const Service* service = find_service(*active_, name);
    for (const Observed& container : world_.containers) {
      if (container.service == name && matches(container, service, *hashes_)) return &container;
    }
    return nullptr;
  }

  bool has_image(const Service& service) const { return world_.images.contains(service.image()); }

  bool due(SteadyPoint at) {
    if (at <= world_.now) return true;
    plan_.wake_at = std::min(plan_.wake_at, at);
    return false;
  }

  // True when every image is there. One download at a time: they share one line anyway.
  bool pull() {
    bool complete = true;
    bool busy = std::any_of(memory_.begin(), memory_.end(),
                            [](const auto& item) { return item.second.pulling; });
    for (const Service& service : world_.desired.services()) {
      Memory& memory = memory_[service.name()];
      if (has_image(service)) {
        if (!memory.pulling) memory.pull = {};
        continue;
      }
      complete = false;
      if (busy || !due(memory.pull.retry_at)) continue;
      plan_.actions.push_back({ActionKind::kPull, service.name(), ""});
      busy = true;
    }
    return complete;
  }

  // How many services must be there before this one; a circle (refused by the backend) ends too.
  int depth(const std::string& name, int budget) const {
    const Service* service = find_service(*active_, name);
    int deepest = 0;
    if (service == nullptr || budget == 0) return deepest;
    for (const std::string& need : needs_of(*service))
      deepest = std::max(deepest, 1 + depth(need, budget - 1));
    return deepest;
  }

  void remove_unwanted() {
    std::set<std::string> kept;
    std::vector<const Observed*> unwanted;
    for (const Observed& container : world_.containers) {
      const Service* service = find_service(*active_, container.service);
      if (matches(container, service, *hashes_) && kept.insert(container.service).second) continue;
      // Nothing could take its place yet.
      if (service != nullptr && !has_image(*service)) continue;
      unwanted.push_back(&container);
      replaced_.insert(container.service);
    }
    add_network_guests(kept, unwanted);
    // What depends on others stops before them.
    const auto order = [&](const Observed* container) {
      return std::pair(-depth(container->service, 8), container->id);
    };
    std::sort(unwanted.begin(), unwanted.end(),
              [&](const Observed* a, const Observed* b) { return order(a) < order(b); });
    for (const Observed* container : unwanted)
      plan_.actions.push_back({ActionKind::kRemove, container->service, container->id});
  }

  // A container that lives in another's network goes with it: the runtime refuses to remove the
  // host before its guests, and a guest would keep a dead network.
  void add_network_guests(const std::set<std::string>& kept,
                          std::vector<const Observed*>& unwanted) {
    for (const Service& service : active_->services()) {
      if (!service.network_mode().starts_with("service:")) continue;
      const std::string host = service.network_mode().substr(8);
      const bool stays = kept.contains(host) && !replaced_.contains(host);
      const Observed* container = find(service.name());
      if (stays || container == nullptr || replaced_.contains(service.name())) continue;
      unwanted.push_back(container);
      replaced_.insert(service.name());
    }
  }

  bool ready(const Dependency& dependency) const {
    const Observed* other = find(dependency.service());
    if (other == nullptr) return false;
    if (dependency.condition() == Dependency::COMPLETED)
      return other->run == Run::kExited && other->exit_code == 0;
    if (dependency.condition() != Dependency::HEALTHY) return other->run != Run::kCreated;
    if (other->run != Run::kRunning) return false;
    const auto known = memory_.find(dependency.service());
    return !check_of(*find_service(*active_, dependency.service()), *other) ||
           (known != memory_.end() && known->second.container == other->id &&
            known->second.health == Health::kHealthy);
  }

  bool dependencies_ready(const Service& service) const {
    for (const Dependency& dependency : service.depends_on()) {
      if (!dependency.optional() && !ready(dependency)) return false;
    }
    if (!service.network_mode().starts_with("service:")) return true;
    const Observed* host = find(service.network_mode().substr(8));
    return host != nullptr && host->run == Run::kRunning;
  }

  // True when the service is as it should be.
  bool advance(const Service& service) {
    if (replaced_.contains(service.name())) return false;  // its new container comes next round
    Memory& memory = memory_[service.name()];
    const Observed* container = find(service.name());
    if (container == nullptr || container->run == Run::kCreated) {
      memory.health = Health::kNone;
      if (!has_image(service) || !dependencies_ready(service) || !due(memory.run.retry_at))
        return false;
      plan_.actions.push_back({container == nullptr ? ActionKind::kCreate : ActionKind::kStart,
                               service.name(), container == nullptr ? "" : container->id});
      return false;
    }
    if (container->run == Run::kExited) return exited(service, *container, memory);
    return running(service, *container, memory);
  }

  bool exited(const Service& service, const Observed& container, Memory& memory) {
    memory.health = Health::kNone;
    memory.container.clear();
    if (completes(service, container)) return clear(memory.run);
    const auto limit = static_cast<int>(service.restart().max_retries());
    const bool may =
        restarts_always(service) || (service.restart().policy() == Restart::ON_FAILURE &&
                                     (limit == 0 || memory.restarts < limit));
    if (memory.run.error_code.empty() || memory.run.error_code == "exited") {
      memory.run.error_code = "exited";
      memory.run.error = service.name() + " exited with code " +
                         std::to_string(container.exit_code) +
                         (container.exit_code == 137 ? " (killed, perhaps out of memory)" : "");
    }
    if (!may) {
      memory.run.failures = std::max(memory.run.failures, kTellAfter);
      return false;
    }
    if (due(memory.run.retry_at))
      plan_.actions.push_back({ActionKind::kStart, service.name(), container.id});
    return false;
  }

  bool running(const Service& service, const Observed& container, Memory& memory) {
    const auto check = check_of(service, container);
    if (memory.container != container.id || memory.started != container.started) {
      memory.container = container.id;
      memory.started = container.started;
      memory.running_since = memory.probe_at = world_.now;
      memory.count_at = {};
      memory.health = check ? Health::kChecking : Health::kNone;
      memory.bad_probes = 0;
      memory.probing = memory.probe_late = false;
      plan_.began_anew = true;
    }
    // Not at the first sight of a run: a service that keeps crashing is seen running in between.
    if (world_.now - memory.running_since > kStable) {
      memory.restarts = 0;
      memory.run.failures = 0;
    }
    if (!check) return clear(memory.run);
    if (memory.probing) {
      if (!memory.probe_late && due(memory.probe_fails_at)) {
        memory.probe_late = true;
        note_probe(memory, *check, false, world_.now);
      } else if (memory.probe_late && due(memory.probe_at)) {
        note_probe(memory, *check, false, world_.now);  // it still hangs
      }
    } else if (due(memory.probe_at)) {
      plan_.actions.push_back({ActionKind::kProbe, service.name(), container.id});
    }
    if (memory.health == Health::kUnhealthy) {
      memory.run.error_code = "unhealthy";
      memory.run.error = service.name() + " runs but its health check fails";
      return false;
    }
    return memory.health == Health::kHealthy && clear(memory.run);
  }

  // The failures stay counted until the service has proven to be stable.
  static bool clear(Attempts& attempts) {
    attempts.error.clear();
    attempts.error_code.clear();
    return true;
  }

  bool tells(const Attempts& attempts) const {
    if (attempts.error.empty()) return false;
    if (attempts.error_code == "unhealthy") return true;
    if (attempts.transient) return world_.now - attempts.since >= kTransientTell;
    return attempts.failures >= kTellAfter;
  }

  void judge(SteadyPoint settled_since) {
    plan_.phase = plan_.fetched ? ReportedState::STARTING : ReportedState::DOWNLOADING;
    if (plan_.settled) {
      const Duration soak(world_.desired.soak_ms());
      const bool begins = settled_since == SteadyPoint() || plan_.began_anew;
      plan_.phase = due((begins ? world_.now : settled_since) + soak) ? ReportedState::CONFIRMED
                                                                      : ReportedState::SOAKING;
      return;
    }
    for (const Service& service : world_.desired.services()) {
      const Memory& memory = memory_[service.name()];
      const Attempts& attempts = plan_.complete ? memory.run : memory.pull;
      if (!tells(attempts)) continue;
      plan_.phase = ReportedState::FAILED;
      plan_.error_code = attempts.error_code;
      plan_.error = attempts.error;
      plan_.transient = attempts.transient;
      return;
    }
  }

  const World& world_;
  std::map<std::string, Memory>& memory_;
  const DesiredState* active_ = nullptr;  // what the containers should be now
  const ConfigHashes* hashes_ = nullptr;
  std::set<std::string> replaced_;  // their new containers come in the next round
  Plan plan_;
};

void describe_container(const Service& service, const Observed& container, ServiceState& out) {
  const std::string wanted = digest_of(service.image());
  out.set_container_id(container.id);
  if (container.image_digests.contains(wanted))
    out.set_image_digest(wanted);
  else if (!container.image_digests.empty())
    out.set_image_digest(*container.image_digests.begin());
  out.set_state(container.run == Run::kRunning  ? ServiceState::RUNNING
                : container.run == Run::kExited ? ServiceState::EXITED
                                                : ServiceState::CREATED);
  out.set_exit_code(container.exit_code);
  out.set_started_at_ms(to_unix_ms(container.started));
}

}  // namespace

bool completes(const Service& service, const Observed& container) {
  return container.run == Run::kExited && container.exit_code == 0 && !restarts_always(service);
}

Plan make_plan(const World& world, std::map<std::string, Memory>& memory,
               SteadyPoint settled_since) {
  return Planner(world, memory).run(settled_since);
}

ReportedState make_report(const World& world, const Plan& plan,
                          const std::map<std::string, Memory>& memory) {
  ReportedState report;
  report.set_desired_version(world.desired.version());
  report.set_release_id(world.desired.release_id());
  report.set_rollout_id(world.desired.rollout_id());
  report.set_phase(plan.phase);
  report.set_error(plan.error);
  report.set_error_code(plan.error_code);
  for (const Service& service : world.desired.services()) {
    ServiceState* out = report.add_services();
    out->set_name(service.name());
    out->set_state(ServiceState::MISSING);
    const Observed* shown = nullptr;  // while two are there, the one that is as wanted
    for (const Observed& container : world.containers) {
      if (container.service == service.name() &&
          (shown == nullptr || matches(container, &service, world.desired_hashes)))
        shown = &container;
    }
    if (shown != nullptr) describe_container(service, *shown, *out);
    const bool check = shown != nullptr ? check_of(service, *shown).has_value()
                                        : check_of(service, Observed()).has_value();
    out->set_health(check ? ServiceState::CHECKING : ServiceState::NO_CHECK);
    const auto known = memory.find(service.name());
    if (known == memory.end()) continue;
    if (known->second.pulling) {
      if (shown == nullptr) out->set_state(ServiceState::PULLING);
      out->set_pull_percent(known->second.pull_percent);
    }
    if (known->second.last_exit) *out->mutable_last_exit() = *known->second.last_exit;
    out->set_restart_count(static_cast<std::uint32_t>(known->second.restarts));
    out->set_message(known->second.pull.error.empty() ? known->second.run.error
                                                      : known->second.pull.error);
    if (known->second.health == Health::kHealthy) out->set_health(ServiceState::HEALTHY);
    if (known->second.health == Health::kUnhealthy) out->set_health(ServiceState::UNHEALTHY);
  }
  return report;
}

}  // namespace flock::agent

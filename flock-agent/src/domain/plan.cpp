// SPDX-License-Identifier: Apache-2.0
#include "domain/plan.h"

#include <algorithm>

namespace flock::agent {
namespace {

using device::v1::Dependency;
using device::v1::Restart;
using device::v1::Service;

constexpr int kTellAfter = 3;        // failed attempts before the release counts as failed
constexpr Duration kStable{60'000};  // a service that ran so long has its crashes forgiven

std::string digest_of(const std::string& image) {
  const std::size_t at = image.find('@');
  return at == std::string::npos ? "" : image.substr(at + 1);
}

bool has_check(const Service& service) {
  return service.has_healthcheck() && service.healthcheck().test_size() > 0 &&
         service.healthcheck().test(0) != "NONE";
}

bool completes(const Service& service, const Observed& container) {
  return container.run == Run::kExited && container.exit_code == 0 &&
         service.restart().policy() != Restart::ALWAYS &&
         service.restart().policy() != Restart::UNLESS_STOPPED;
}

class Planner {
 public:
  Planner(const World& world, std::map<std::string, Memory>& memory)
      : world_(world), memory_(memory) {}

  Plan run(SteadyPoint settled_since) {
    std::erase_if(memory_, [&](const auto& item) { return find_service(item.first) == nullptr; });
    if (world_.desired.version() == 0) return plan_;
    plan_.phase = ReportedState::STARTING;
    if (!pull()) {
      plan_.phase = ReportedState::DOWNLOADING;
    } else {
      remove_unwanted();
      bool settled = true;
      for (const Service& service : world_.desired.services())
        settled = advance(service) && settled;
      plan_.settled =
          settled && plan_.actions.end() ==
                         std::find_if(plan_.actions.begin(), plan_.actions.end(),
                                      [](const Action& a) { return a.kind != ActionKind::kProbe; });
    }
    judge(settled_since);
    return plan_;
  }

 private:
  const Service* find_service(const std::string& name) const {
    for (const Service& service : world_.desired.services()) {
      if (service.name() == name) return &service;
    }
    return nullptr;
  }

  const Observed* find(const std::string& service) const {
    for (const Observed& container : world_.containers) {
      if (container.service == service && as_wanted(container)) return &container;
    }
    return nullptr;
  }

  bool as_wanted(const Observed& container) const {
    const Service* service = find_service(container.service);
    const auto hash = world_.config_hashes.find(container.service);
    return service != nullptr && hash != world_.config_hashes.end() &&
           container.config_hash == hash->second &&
           container.image_digest == digest_of(service->image());
  }

  bool due(SteadyPoint at) {
    if (at <= world_.now) return true;
    plan_.wake_at = std::min(plan_.wake_at, at);
    return false;
  }

  // True when every image is there.
  bool pull() {
    bool complete = true;
    for (const Service& service : world_.desired.services()) {
      if (world_.images.contains(service.image()) || find(service.name()) != nullptr) continue;
      complete = false;
      if (due(memory_[service.name()].retry_at))
        plan_.actions.push_back({ActionKind::kPull, service.name(), ""});
    }
    return complete;
  }

  void remove_unwanted() {
    std::set<std::string> kept;
    for (const Observed& container : world_.containers) {
      if (as_wanted(container) && kept.insert(container.service).second) continue;
      plan_.actions.push_back({ActionKind::kRemove, container.service, container.id});
      replaced_.insert(container.service);
    }
  }

  bool dependencies_ready(const Service& service) const {
    for (const Dependency& dependency : service.depends_on()) {
      const Observed* other = find(dependency.service());
      const Service* wanted = find_service(dependency.service());
      const auto known = memory_.find(dependency.service());
      bool ready = other != nullptr && other->run == Run::kRunning;
      if (dependency.condition() == Dependency::COMPLETED)
        ready = other != nullptr && other->run == Run::kExited && other->exit_code == 0;
      if (dependency.condition() == Dependency::HEALTHY && wanted != nullptr && has_check(*wanted))
        ready = ready && known != memory_.end() && known->second.health == Health::kHealthy;
      if (!ready && !dependency.optional()) return false;
    }
    return true;
  }

  // True when the service is as it should be.
  bool advance(const Service& service) {
    Memory& memory = memory_[service.name()];
    const Observed* container = find(service.name());
    if (container == nullptr || container->run == Run::kCreated) {
      memory.health = Health::kNone;
      if (replaced_.contains(service.name()) || !dependencies_ready(service) ||
          !due(memory.retry_at))
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
    memory.running_since = {};
    if (completes(service, container)) return true;
    const bool may = service.restart().policy() == Restart::ALWAYS ||
                     service.restart().policy() == Restart::UNLESS_STOPPED ||
                     (service.restart().policy() == Restart::ON_FAILURE &&
                      (service.restart().max_retries() == 0 ||
                       memory.restarts < static_cast<int>(service.restart().max_retries())));
    if (memory.error_code.empty() || memory.error_code == "exited") {
      memory.error_code = "exited";
      memory.error = service.name() + " exited with code " + std::to_string(container.exit_code) +
                     (container.exit_code == 137 ? " (killed, perhaps out of memory)" : "");
    }
    if (!may) {
      memory.failures = kTellAfter;
      return false;
    }
    if (due(memory.retry_at))
      plan_.actions.push_back({ActionKind::kStart, service.name(), container.id});
    return false;
  }

  bool running(const Service& service, const Observed& container, Memory& memory) {
    if (memory.running_since == SteadyPoint()) {
      memory.running_since = world_.now;
      memory.health = has_check(service) ? Health::kChecking : Health::kNone;
      memory.bad_probes = 0;
      memory.probe_at = world_.now;
    }
    if (world_.now - memory.running_since > kStable) memory.restarts = 0;
    if (!has_check(service)) return clear(memory);
    if (due(memory.probe_at))
      plan_.actions.push_back({ActionKind::kProbe, service.name(), container.id});
    if (memory.health == Health::kUnhealthy) {
      memory.error_code = "unhealthy";
      memory.error = service.name() + " runs but its health check fails";
      memory.failures = kTellAfter;
    }
    return memory.health == Health::kHealthy && clear(memory);
  }

  static bool clear(Memory& memory) {
    memory.failures = 0;
    memory.error.clear();
    memory.error_code.clear();
    return true;
  }

  void judge(SteadyPoint settled_since) {
    if (plan_.settled) {
      const Duration soak(world_.desired.soak_ms());
      const SteadyPoint confirmed_at =
          (settled_since == SteadyPoint() ? world_.now : settled_since) + soak;
      plan_.phase = due(confirmed_at) ? ReportedState::CONFIRMED : ReportedState::SOAKING;
      return;
    }
    for (const auto& [name, memory] : memory_) {
      if (memory.failures < kTellAfter || memory.error.empty()) continue;
      plan_.phase = ReportedState::FAILED;
      plan_.error_code = memory.error_code;
      plan_.error = memory.error;
      return;
    }
  }

  const World& world_;
  std::map<std::string, Memory>& memory_;
  std::set<std::string> replaced_;  // their new containers come in the next round
  Plan plan_;
};

}  // namespace

Plan make_plan(const World& world, std::map<std::string, Memory>& memory,
               SteadyPoint settled_since) {
  return Planner(world, memory).run(settled_since);
}

Duration retry_pause(int failures) {
  Duration pause(1000);
  for (int i = 1; i < failures && pause < Duration(60'000); ++i) pause *= 2;
  return std::min(pause, Duration(60'000));
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
    out->set_health(has_check(service) ? ServiceState::CHECKING : ServiceState::NO_CHECK);
    const auto known = memory.find(service.name());
    if (known != memory.end()) {
      out->set_restart_count(static_cast<std::uint32_t>(known->second.restarts));
      out->set_message(known->second.error);
      if (known->second.health == Health::kHealthy) out->set_health(ServiceState::HEALTHY);
      if (known->second.health == Health::kUnhealthy) out->set_health(ServiceState::UNHEALTHY);
    }
    for (const Observed& container : world.containers) {
      if (container.service != service.name()) continue;
      out->set_container_id(container.id);
      out->set_image_digest(container.image_digest);
      out->set_state(container.run == Run::kRunning  ? ServiceState::RUNNING
                     : container.run == Run::kExited ? ServiceState::EXITED
                                                     : ServiceState::CREATED);
      out->set_exit_code(container.exit_code);
      out->set_started_at_ms(to_unix_ms(container.started));
    }
  }
  return report;
}

}  // namespace flock::agent

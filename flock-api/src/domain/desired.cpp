// SPDX-License-Identifier: Apache-2.0
#include "domain/desired.h"

#include <algorithm>

#include "base/error.h"

namespace flock::domain {
namespace {

namespace wl = workload;
using device::v1::DesiredState;

void copy_lists(const wl::Service& from, device::v1::Service& to) {
  if (from.command) {
    to.set_has_command(true);
    for (const auto& word : *from.command) to.add_command(word);
  }
  if (from.entrypoint) {
    to.set_has_entrypoint(true);
    for (const auto& word : *from.entrypoint) to.add_entrypoint(word);
  }
  for (const auto& [key, value] : from.labels) (*to.mutable_labels())[key] = value;
  for (const auto& name : from.networks) to.add_networks(name);
  for (const auto& name : from.cap_add) to.add_cap_add(name);
  for (const auto& name : from.cap_drop) to.add_cap_drop(name);
  for (const auto& name : from.extra_hosts) to.add_extra_hosts(name);
}

void copy_parts(const wl::Service& from, device::v1::Service& to) {
  for (const wl::Port& port : from.ports) {
    auto* out = to.add_ports();
    out->set_host_ip(port.host_ip);
    out->set_host_port(static_cast<std::uint32_t>(port.host_port));
    out->set_container_port(static_cast<std::uint32_t>(port.container_port));
    out->set_protocol(port.protocol);
  }
  for (const wl::Mount& mount : from.mounts) {
    auto* out = to.add_mounts();
    out->set_kind(mount.kind == wl::MountKind::kBind    ? device::v1::Mount::BIND
                  : mount.kind == wl::MountKind::kTmpfs ? device::v1::Mount::TMPFS
                                                        : device::v1::Mount::VOLUME);
    out->set_source(mount.source);
    out->set_target(mount.target);
    out->set_read_only(mount.read_only);
    out->set_size_bytes(mount.size_bytes);
  }
  for (const wl::DeviceNode& node : from.devices) {
    auto* out = to.add_devices();
    out->set_host_path(node.host_path);
    out->set_container_path(node.container_path);
    out->set_permissions(node.permissions);
  }
  for (const wl::Dependency& dependency : from.depends_on) {
    auto* out = to.add_depends_on();
    out->set_service(dependency.service);
    out->set_optional(!dependency.required);
    out->set_condition(
        static_cast<device::v1::Dependency::Condition>(static_cast<int>(dependency.condition) + 1));
  }
  to.mutable_restart()->set_policy(
      static_cast<device::v1::Restart::Policy>(static_cast<int>(from.restart) + 1));
  to.mutable_restart()->set_max_retries(static_cast<std::uint32_t>(from.max_retries));
  if (from.healthcheck) {
    auto* check = to.mutable_healthcheck();
    for (const auto& word : from.healthcheck->test) check->add_test(word);
    check->set_interval_ms(from.healthcheck->interval.count());
    check->set_timeout_ms(from.healthcheck->timeout.count());
    check->set_start_period_ms(from.healthcheck->start_period.count());
    check->set_retries(static_cast<std::uint32_t>(from.healthcheck->retries));
  }
}

std::map<std::string, std::string> environment_of(const wl::Service& service,
                                                  const std::vector<Variable>& variables) {
  std::map<std::string, std::string> out;
  for (auto& [name, effective] : resolve(service.environment, service.name, variables))
    out.emplace(name, effective.chosen.value);
  return out;
}

// A variable for every service is there once for each.
void check_size(const DesiredState& desired) {
  if (desired.ByteSizeLong() > kDesiredBytes)
    throw Error(Code::kUnprocessable,
                "too_large: the release with its variables does not fit into one message");
}

}  // namespace

std::string digest_for(const std::map<std::string, std::string>& digests,
                       const std::string& architecture, const std::string& variant) {
  std::vector<std::string> candidates{
      "linux/" + architecture + (variant.empty() || architecture == "arm64" ? "" : "/" + variant)};
  if (architecture == "arm") {
    for (const char* lower : {"v7", "v6", "v5"}) {
      if (variant >= lower) candidates.push_back(std::string("linux/arm/") + lower);
    }
  }
  candidates.push_back("linux/" + architecture);
  for (const std::string& candidate : candidates) {
    if (const auto found = digests.find(candidate); found != digests.end()) return found->second;
  }
  return "";
}

DesiredState make_desired(const wl::Workload& workload, const std::string& architecture,
                          const std::string& variant, const std::vector<Variable>& variables) {
  DesiredState desired;
  for (const wl::Service& service : workload.services) {
    const std::string digest = digest_for(service.digests, architecture, variant);
    if (digest.empty()) {
      std::string have;
      for (const auto& [platform, unused] : service.digests)
        have += (have.empty() ? "" : ", ") + platform;
      throw Error(Code::kUnprocessable,
                  "missing_platform: the image of " + service.name + " is not there for linux/" +
                      architecture + (variant.empty() ? "" : "/" + variant) + ", only for " + have);
    }
    auto* out = desired.add_services();
    out->set_name(service.name);
    out->set_image(service.repository + "@" + digest);
    out->set_image_tag(service.image);
    for (const auto& [name, value] : environment_of(service, variables))
      (*out->mutable_environment())[name] = value;
    copy_lists(service, *out);
    copy_parts(service, *out);
    out->set_network_mode(service.network_mode);
    out->set_privileged(service.privileged);
    out->set_read_only(service.read_only);
    out->set_init(service.init);
    out->set_user(service.user);
    out->set_working_dir(service.working_dir);
    out->set_hostname(service.hostname);
    out->set_stop_signal(service.stop_signal);
    out->set_stop_grace_ms(service.stop_grace.count());
    auto* limits = out->mutable_limits();
    limits->set_memory_bytes(service.memory_bytes);
    limits->set_memory_reservation_bytes(service.memory_reservation_bytes);
    limits->set_cpus(service.cpus);
    limits->set_pids(service.pids);
  }
  for (const std::string& volume : workload.volumes) desired.add_volumes()->set_name(volume);
  for (const wl::Network& network : workload.networks) {
    auto* out = desired.add_networks();
    out->set_name(network.name);
    out->set_internal(network.internal);
  }
  check_size(desired);
  return desired;
}

bool replace_environment(DesiredState& desired, const wl::Workload& workload,
                         const std::vector<Variable>& variables) {
  bool changed = false;
  for (device::v1::Service& service : *desired.mutable_services()) {
    const auto from =
        std::find_if(workload.services.begin(), workload.services.end(),
                     [&](const wl::Service& each) { return each.name == service.name(); });
    if (from == workload.services.end()) continue;
    const auto wanted = environment_of(*from, variables);
    const std::map<std::string, std::string> present(service.environment().begin(),
                                                     service.environment().end());
    if (wanted == present) continue;
    changed = true;
    service.clear_environment();
    for (const auto& [name, value] : wanted) (*service.mutable_environment())[name] = value;
  }
  check_size(desired);
  return changed;
}

}  // namespace flock::domain

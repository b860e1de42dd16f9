// SPDX-License-Identifier: Apache-2.0
#include "runtimes/podman_spec.h"

#include <boost/json.hpp>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>

#include "base/error.h"

namespace flock::agent {
namespace {

namespace bj = boost::json;

// A file that flockd can follow, whatever the host's default is, and that does not fill the disk:
// beyond this size the runtime begins a new one.
constexpr std::int64_t kContainerLogBytes = 10 << 20;

template <class List>
bj::array strings(const List& list) {
  bj::array out;
  for (const auto& item : list) out.push_back(bj::value(item));
  return out;
}

template <class Map>
bj::object map_of(const Map& map) {
  bj::object out;
  for (const auto& [key, value] : map) out[key] = value;
  return out;
}

std::string octal(std::uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof text, "%o", value);
  return text;
}

// libpod wants a number; compose says "SIGTERM", "TERM", "15" or "SIGRTMIN+3".
int signal_number(std::string name) {
  if (name.starts_with("SIG")) name.erase(0, 3);
  int number = 0;
  const auto parse = [&](std::string_view text) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    return error == std::errc() && end == text.data() + text.size();
  };
  if (parse(name) && number > 0 && number <= SIGRTMAX) return number;
  if (name == "RTMIN") return SIGRTMIN;
  if (name.starts_with("RTMIN+") && parse(std::string_view(name).substr(6)) && number >= 0 &&
      SIGRTMIN + number <= SIGRTMAX)
    return SIGRTMIN + number;
  for (int i = 1; i < SIGRTMIN; ++i) {
    const char* known = ::sigabbrev_np(i);
    if (known != nullptr && name == known) return i;
  }
  throw Error(Code::kUnprocessable, "there is no signal " + name);
}

void add_mounts(const device::v1::Service& service, bj::object& spec) {
  using device::v1::Mount;
  bj::array mounts, volumes;
  for (const Mount& mount : service.mounts()) {
    bj::array options;
    options.push_back(mount.read_only() ? "ro" : "rw");
    if (mount.kind() == Mount::VOLUME) {
      // One without a name belongs to its container and goes with it.
      volumes.push_back(
          bj::object{{"Name", mount.source().empty() ? "" : volume_name(mount.source())},
                     {"Dest", mount.target()},
                     {"Options", options}});
    } else if (mount.kind() == Mount::BIND) {
      options.push_back("rbind");
      mounts.push_back(bj::object{{"type", "bind"},
                                  {"source", mount.source()},
                                  {"destination", mount.target()},
                                  {"options", options}});
    } else {
      if (mount.size_bytes() > 0)
        options.push_back(bj::value("size=" + std::to_string(mount.size_bytes())));
      if (mount.mode() > 0) options.push_back(bj::value("mode=" + octal(mount.mode())));
      mounts.push_back(bj::object{{"type", "tmpfs"},
                                  {"source", "tmpfs"},
                                  {"destination", mount.target()},
                                  {"options", options}});
    }
  }
  if (!mounts.empty()) spec["mounts"] = std::move(mounts);
  if (!volumes.empty()) spec["volumes"] = std::move(volumes);
}

void add_network(const device::v1::Service& service, const device::v1::DesiredState& desired,
                 bj::object& spec) {
  const std::string& mode = service.network_mode();
  if (mode == "host" || mode == "none") {
    spec["netns"] = bj::object{{"nsmode", mode}};
    return;
  }
  if (mode.starts_with("service:")) {
    spec["netns"] = bj::object{{"nsmode", "container"}, {"value", "flock-" + mode.substr(8)}};
    return;
  }
  spec["netns"] = bj::object{{"nsmode", "bridge"}};
  bj::object networks;
  for (const std::string& name : networks_of(service, desired))
    networks[name] = bj::object{{"aliases", bj::array{bj::value(service.name())}}};
  if (!networks.empty()) spec["networks"] = std::move(networks);
  bj::array ports;
  for (const auto& port : service.ports()) {
    bj::object out{{"container_port", port.container_port()},
                   {"protocol", port.protocol().empty() ? "tcp" : port.protocol()}};
    if (port.host_port() > 0) out["host_port"] = port.host_port();
    if (!port.host_ip().empty()) out["host_ip"] = port.host_ip();
    ports.push_back(std::move(out));
  }
  if (!ports.empty()) spec["portmappings"] = std::move(ports);
}

void add_limits(const device::v1::Service& service, bj::object& spec) {
  const auto& limits = service.limits();
  bj::object out, memory;
  if (limits.memory_bytes() > 0) memory["limit"] = limits.memory_bytes();
  if (limits.memory_reservation_bytes() > 0)
    memory["reservation"] = limits.memory_reservation_bytes();
  if (!memory.empty()) out["memory"] = std::move(memory);
  if (limits.cpus() > 0)
    out["cpu"] = bj::object{{"quota", static_cast<std::int64_t>(limits.cpus() * 100'000)},
                            {"period", 100'000}};
  if (limits.pids() > 0) out["pids"] = bj::object{{"limit", limits.pids()}};
  if (!out.empty()) spec["resource_limits"] = std::move(out);
}

}  // namespace

std::string volume_name(const std::string& volume) { return "flock-" + volume; }

std::vector<std::string> networks_of(const device::v1::Service& service,
                                     const device::v1::DesiredState& desired) {
  std::vector<std::string> out;
  const std::string& mode = service.network_mode();
  if (!mode.empty() && mode != "bridge") return out;
  for (const std::string& name : service.networks()) out.push_back("flock-" + name);
  if (out.empty() && mode.empty() && desired.services_size() > 1) out.push_back("flock-default");
  return out;
}

std::string container_spec(const device::v1::Service& service,
                           const device::v1::DesiredState& desired,
                           const std::string& config_hash) {
  bj::object labels = map_of(service.labels());
  labels[kManagedLabel] = "true";
  labels[kServiceLabel] = service.name();
  labels[kConfigLabel] = config_hash;
  bj::object spec{
      {"name", "flock-" + service.name()},
      {"image", service.image()},
      {"labels", std::move(labels)},
      {"log_configuration", bj::object{{"driver", "k8s-file"}, {"size", kContainerLogBytes}}},
      {"restart_policy", "no"}};
  if (service.has_command()) spec["command"] = strings(service.command());
  if (service.has_entrypoint()) spec["entrypoint"] = strings(service.entrypoint());
  if (!service.environment().empty()) spec["env"] = map_of(service.environment());
  add_mounts(service, spec);
  add_network(service, desired, spec);
  add_limits(service, spec);
  if (service.cap_add_size() > 0) spec["cap_add"] = strings(service.cap_add());
  if (service.cap_drop_size() > 0) spec["cap_drop"] = strings(service.cap_drop());
  bj::array devices;
  for (const auto& device : service.devices())
    devices.push_back(bj::object{
        {"path", device.host_path() + ":" + device.container_path() + ":" + device.permissions()}});
  if (!devices.empty()) spec["devices"] = std::move(devices);
  if (service.privileged()) spec["privileged"] = true;
  if (service.read_only()) spec["read_only_filesystem"] = true;
  if (service.init()) spec["init"] = true;
  if (!service.user().empty()) spec["user"] = service.user();
  if (!service.working_dir().empty()) spec["work_dir"] = service.working_dir();
  if (!service.hostname().empty()) spec["hostname"] = service.hostname();
  if (service.extra_hosts_size() > 0) spec["hostadd"] = strings(service.extra_hosts());
  if (!service.stop_signal().empty()) spec["stop_signal"] = signal_number(service.stop_signal());
  spec["stop_timeout"] = (service.stop_grace_ms() > 0 ? service.stop_grace_ms() : 10'000) / 1000;
  if (service.has_healthcheck() && service.healthcheck().test_size() > 0) {
    const auto& check = service.healthcheck();
    // flockd makes the probes; libpod only keeps what they are. Its durations are nanoseconds.
    spec["healthconfig"] = bj::object{{"Test", strings(check.test())},
                                      {"Interval", check.interval_ms() * 1'000'000},
                                      {"Timeout", check.timeout_ms() * 1'000'000},
                                      {"StartPeriod", check.start_period_ms() * 1'000'000},
                                      {"Retries", check.retries()}};
  }
  return bj::serialize(spec);
}

}  // namespace flock::agent

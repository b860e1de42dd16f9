// SPDX-License-Identifier: Apache-2.0
// What a release asks a device to run: one model for backend, agent and CLI. Field by field it
// mirrors Service in proto/flock/device/v1/device.proto, where the defaults are explained.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"

namespace flock::workload {

struct Port {
  std::string host_ip;
  int host_port = 0;  // 0: any free one
  int container_port = 0;
  std::string protocol = "tcp";
};
enum class MountKind { kVolume, kBind, kTmpfs };
struct Mount {
  MountKind kind = MountKind::kVolume;
  std::string source, target;
  bool read_only = false;
  std::int64_t size_bytes = 0;
};
enum class RestartPolicy { kNo, kAlways, kOnFailure, kUnlessStopped };
enum class Condition { kStarted, kHealthy, kCompleted };
struct Dependency {
  std::string service;
  Condition condition = Condition::kStarted;
  bool required = true;
};
struct HealthCheck {
  std::vector<std::string> test;  // {"CMD", ...}, {"CMD-SHELL", text} or {"NONE"}
  Duration interval{30'000}, timeout{30'000}, start_period{0};
  int retries = 3;
};
struct DeviceNode {
  std::string host_path, container_path, permissions = "rwm";
};

struct Service {
  std::string name;
  std::string image;  // as written
  // Filled when a release is made: "registry/repository" and the digest for each platform
  // ("linux/amd64").
  std::string repository;
  std::map<std::string, std::string> digests;

  std::optional<std::vector<std::string>> command, entrypoint;
  std::map<std::string, std::string> environment, labels;
  std::vector<Port> ports;
  std::vector<Mount> mounts;
  RestartPolicy restart = RestartPolicy::kAlways;
  int max_retries = 0;  // kOnFailure; 0: no limit
  std::optional<HealthCheck> healthcheck;
  std::vector<Dependency> depends_on;
  std::string network_mode;  // "", bridge, host, none, service:NAME
  std::vector<std::string> networks;
  std::vector<std::string> cap_add, cap_drop, extra_hosts;
  std::vector<DeviceNode> devices;
  bool privileged = false, read_only = false, init = false;
  std::int64_t memory_bytes = 0, memory_reservation_bytes = 0, pids = 0;
  double cpus = 0;
  Duration stop_grace{10'000};
  std::string stop_signal, user, working_dir, hostname;
};

struct Network {
  std::string name;
  bool internal = false;
};

struct Workload {
  std::vector<Service> services;  // by name
  std::vector<std::string> volumes;
  std::vector<Network> networks;
};

// One text for one workload: keys sorted, no white space. What releases store and hash.
std::string to_json(const Workload& workload);
// Throws Error{kCorrupt} when `text` was not made by to_json().
Workload from_json(std::string_view text);

}  // namespace flock::workload

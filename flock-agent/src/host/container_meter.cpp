// SPDX-License-Identifier: Apache-2.0
#include "host/container_meter.h"

#include <unistd.h>

#include <algorithm>
#include <array>

#include "host/kernel_files.h"

namespace flock::agent {
namespace {

using device::v1::ServiceMetrics;

// cgroup v1 writes "no limit" as the largest number of whole pages.
constexpr std::int64_t kNoLimit = std::int64_t{1} << 60;

// The folder of a process's cgroup, for each controller (v1) or for all of them under "" (v2).
using Cgroups = std::map<std::string, std::string, std::less<>>;

// crun puts the processes one level below the group that has the limits.
std::string without_inner_group(std::string path) {
  if (path.ends_with("/container"))
    path.resize(path.size() - std::string_view("/container").size());
  return path;
}

// Lines such as "4:memory:/machine/libpod-ID" or "0::/machine/libpod-ID". Only those of `container`
// are taken: a process id may be another's by now.
Cgroups parse_cgroups(std::string_view text, const std::string& container) {
  Cgroups out;
  for (const std::string_view line : lines_of(text)) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string_view::npos || second == std::string_view::npos) continue;
    const std::string path(line.substr(second + 1));
    if (path.find(container) == std::string::npos || path.find("..") != std::string::npos) continue;
    std::string_view controllers = line.substr(first + 1, second - first - 1);
    for (;;) {
      const std::size_t comma = std::min(controllers.find(','), controllers.size());
      out[std::string(controllers.substr(0, comma))] = without_inner_group(path);
      if (comma == controllers.size()) break;
      controllers.remove_prefix(comma + 1);
    }
  }
  return out;
}

void set_memory(std::optional<std::int64_t> used, std::optional<std::int64_t> reclaimable,
                std::optional<std::int64_t> limit, ServiceMetrics& out) {
  // Cached files that the kernel can drop at once are nobody's need.
  if (used) out.set_memory_bytes(std::max<std::int64_t>(0, *used - reclaimable.value_or(0)));
  if (limit && *limit < kNoLimit) out.set_memory_limit_bytes(*limit);
}

// "8:0 rbytes=1 wbytes=2 ..." for each disk.
void read_disk_v2(const std::string& text, ServiceMetrics& out) {
  std::int64_t read = 0, written = 0;
  for (const std::string_view word : words_of(text)) {
    if (word.starts_with("rbytes=")) read += number_of(word.substr(7)).value_or(0);
    if (word.starts_with("wbytes=")) written += number_of(word.substr(7)).value_or(0);
  }
  out.set_disk_read_bytes(read);
  out.set_disk_written_bytes(written);
}

// "8:0 Read 1" for each disk, and a sum.
void read_disk_v1(const std::string& text, ServiceMetrics& out) {
  std::int64_t read = 0, written = 0;
  for (const std::string_view line : lines_of(text)) {
    const auto words = words_of(line);
    if (words.size() != 3) continue;
    if (words[1] == "Read") read += number_of(words[2]).value_or(0);
    if (words[1] == "Write") written += number_of(words[2]).value_or(0);
  }
  out.set_disk_read_bytes(read);
  out.set_disk_written_bytes(written);
}

void set_pids(std::optional<std::int64_t> count, ServiceMetrics& out) {
  if (count && *count >= 0 && *count < (1 << 30)) out.set_pids(static_cast<std::uint32_t>(*count));
}

// The processor time in microseconds, if it can be read.
std::optional<std::int64_t> read_v2(const std::string& folder, ServiceMetrics& out) {
  const auto statistics = read_kernel_file(folder + "/memory.stat");
  set_memory(read_number(folder + "/memory.current"),
             statistics ? value_of(*statistics, "inactive_file") : std::nullopt,
             read_number(folder + "/memory.max"), out);
  if (const auto disk = read_kernel_file(folder + "/io.stat")) read_disk_v2(*disk, out);
  set_pids(read_number(folder + "/pids.current"), out);
  const auto cpu = read_kernel_file(folder + "/cpu.stat");
  return cpu ? value_of(*cpu, "usage_usec") : std::nullopt;
}

std::optional<std::int64_t> read_v1(const std::string& mounts, const Cgroups& groups,
                                    ServiceMetrics& out) {
  const auto file = [&](const char* controller, const char* name) -> std::string {
    const auto group = groups.find(controller);
    return group == groups.end() ? "" : mounts + controller + group->second + "/" + name;
  };
  const auto statistics = read_kernel_file(file("memory", "memory.stat"));
  set_memory(read_number(file("memory", "memory.usage_in_bytes")),
             statistics ? value_of(*statistics, "total_inactive_file") : std::nullopt,
             read_number(file("memory", "memory.limit_in_bytes")), out);
  if (const auto disk = read_kernel_file(file("blkio", "blkio.throttle.io_service_bytes")))
    read_disk_v1(*disk, out);
  set_pids(read_number(file("pids", "pids.current")), out);
  const auto nanoseconds = read_number(file("cpuacct", "cpuacct.usage"));
  if (!nanoseconds) return std::nullopt;
  return *nanoseconds / 1000;
}

std::string link_target(const std::string& path) {
  std::array<char, 64> text{};
  const ssize_t length = ::readlink(path.c_str(), text.data(), text.size());
  return length > 0 ? std::string(text.data(), static_cast<std::size_t>(length)) : "";
}

}  // namespace

std::vector<ServiceMetrics> ContainerMeter::sample(const std::vector<Observed>& containers,
                                                   SteadyPoint now) {
  std::vector<ServiceMetrics> out;
  seen_.clear();
  for (const Observed& container : containers) {
    if (container.run != Run::kRunning || container.pid <= 0 || container.id.empty()) continue;
    ServiceMetrics metrics;
    if (read(container, now, metrics)) out.push_back(std::move(metrics));
  }
  before_.swap(seen_);
  std::sort(out.begin(), out.end(),
            [](const auto& a, const auto& b) { return a.service() < b.service(); });
  return out;
}

bool ContainerMeter::read(const Observed& container, SteadyPoint now, ServiceMetrics& out) {
  const std::string process = root_ + "/proc/" + std::to_string(container.pid);
  const auto text = read_kernel_file(process + "/cgroup");
  const Cgroups groups = text ? parse_cgroups(*text, container.id) : Cgroups();
  if (groups.empty()) return false;
  out.set_service(container.service);
  const std::string mounts = root_ + "/sys/fs/cgroup/";
  // A machine in transition has both, with the controllers in v1.
  const auto unified = groups.find("");
  const bool v2 = unified != groups.end() && groups.find("memory") == groups.end();
  const auto cpu =
      v2 ? read_v2(mounts + unified->second.substr(1), out) : read_v1(mounts, groups, out);
  if (cpu) read_cpu(container, *cpu, now, out);
  read_network(container.pid, out);
  return true;
}

void ContainerMeter::read_cpu(const Observed& container, std::int64_t cpu_us, SteadyPoint now,
                              ServiceMetrics& out) {
  seen_[container.id] = {now, cpu_us};
  const auto last = before_.find(container.id);
  if (last == before_.end() || last->second.cpu_us > cpu_us || last->second.at >= now) return;
  const auto passed = std::chrono::duration_cast<std::chrono::microseconds>(now - last->second.at);
  out.set_cpu_cores(static_cast<float>(static_cast<double>(cpu_us - last->second.cpu_us) /
                                       static_cast<double>(passed.count())));
}

// Nothing for a container that has no network of its own.
void ContainerMeter::read_network(int pid, ServiceMetrics& out) const {
  const std::string process = root_ + "/proc/" + std::to_string(pid);
  const std::string network = link_target(process + "/ns/net");
  if (network.empty() || network == link_target(root_ + "/proc/self/ns/net")) return;
  const auto text = read_kernel_file(process + "/net/dev");
  if (!text) return;
  bool any = false;
  Traffic sum;
  for (const Interface& interface : parse_interfaces(*text)) {
    if (interface.name == "lo") continue;
    any = true;
    sum.received += interface.bytes.received;
    sum.sent += interface.bytes.sent;
  }
  if (!any) return;
  out.set_network_received_bytes(sum.received);
  out.set_network_sent_bytes(sum.sent);
}

}  // namespace flock::agent

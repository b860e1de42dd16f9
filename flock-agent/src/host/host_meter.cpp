// SPDX-License-Identifier: Apache-2.0
#include "host/host_meter.h"

#include <sys/statvfs.h>

#include <unistd.h>
#include <algorithm>
#include <charconv>

#include "host/kernel_files.h"

namespace flock::agent {
namespace {

using device::v1::HostMetrics;

constexpr std::size_t kFirstLine = 4096;          // /proc/stat is long on large machines
constexpr double kColdest = -60, kHottest = 200;  // degrees Celsius; a sensor beyond is broken

// The bits of `get_throttled` for now; the upper ones are for since boot (Raspberry Pi firmware):
// under-voltage, frequency capped, throttled, soft temperature limit.
constexpr std::int64_t kThrottledNow = 0xf;

}  // namespace

struct HostMeter::Impl {
  Impl(std::string r, std::string d)
      : root(std::move(r)),
        disk(std::move(d)),
        stat(root + "/proc/stat"),
        memory(root + "/proc/meminfo"),
        load(root + "/proc/loadavg"),
        uptime(root + "/proc/uptime"),
        interfaces(root + "/proc/net/dev") {}

  void read_cpu(HostMetrics& out) {
    const auto text = stat.read(kFirstLine);
    const auto now = text ? parse_cpu(*text) : std::nullopt;
    if (now && cpu_before && now->total > cpu_before->total && now->busy >= cpu_before->busy)
      out.set_cpu_ratio(static_cast<float>(now->busy - cpu_before->busy) /
                        static_cast<float>(now->total - cpu_before->total));
    cpu_before = now;
  }

  void read_memory(HostMetrics& out) {
    const auto text = memory.read();
    if (!text) return;
    constexpr std::int64_t kUnit = 1024;
    const auto total = value_of(*text, "MemTotal"), available = value_of(*text, "MemAvailable");
    if (total && *total > 0) out.set_memory_total_bytes(*total * kUnit);
    if (total && available && *available <= *total)
      out.set_memory_used_bytes((*total - *available) * kUnit);
    const auto swap = value_of(*text, "SwapTotal"), swap_free = value_of(*text, "SwapFree");
    if (swap && swap_free && *swap_free <= *swap)
      out.set_swap_used_bytes((*swap - *swap_free) * kUnit);
  }

  void read_disk(HostMetrics& out) const {
    struct statvfs info{};
    if (::statvfs(disk.c_str(), &info) != 0 || info.f_blocks == 0) return;
    const auto unit = static_cast<std::int64_t>(info.f_frsize);
    out.set_disk_total_bytes(static_cast<std::int64_t>(info.f_blocks) * unit);
    out.set_disk_used_bytes(static_cast<std::int64_t>(info.f_blocks - info.f_bfree) * unit);
  }

  void read_load(HostMetrics& out) {
    const auto text = load.read();
    const auto words = text ? words_of(*text) : std::vector<std::string_view>();
    if (words.empty()) return;
    if (const auto value = decimal_of(words.front())) out.set_load_1m(static_cast<float>(*value));
  }

  void read_uptime(HostMetrics& out) {
    const auto text = uptime.read();
    const auto words = text ? words_of(*text) : std::vector<std::string_view>();
    if (words.empty()) return;
    if (const auto value = decimal_of(words.front()))
      out.set_uptime_seconds(static_cast<std::int64_t>(*value));
  }

  // Hardware has a `device`; bridges, tunnels and container networks, whose bytes would count
  // twice, have none. A modem on a serial line has none either.
  bool is_real(std::string_view name) const {
    if (name.starts_with("ppp") || name.starts_with("wwan")) return true;
    if (name.find('/') != std::string_view::npos) return false;
    return ::access((root + "/sys/class/net/" + std::string(name) + "/device").c_str(), F_OK) == 0;
  }

  void read_network(HostMetrics& out) {
    const auto text = interfaces.read();
    if (!text) return;
    bool any = false;
    Traffic sum;
    for (const Interface& interface : parse_interfaces(*text)) {
      if (!is_real(interface.name)) continue;
      any = true;
      sum.received += interface.bytes.received;
      sum.sent += interface.bytes.sent;
    }
    if (!any) return;
    out.set_network_received_bytes(sum.received);
    out.set_network_sent_bytes(sum.sent);
  }

  // The kernel has thermal zones, monitoring chips, or both; the hottest counts.
  void read_temperature(HostMetrics& out) const {
    const auto look = [&](const std::string& file) {
      const auto thousandths = read_number(file);
      if (!thousandths) return;
      const double degrees = static_cast<double>(*thousandths) / 1000;
      if (degrees <= kColdest || degrees >= kHottest) return;
      if (!out.has_temperature_celsius() ||
          degrees > static_cast<double>(out.temperature_celsius()))
        out.set_temperature_celsius(static_cast<float>(degrees));
    };
    const std::string zones = root + "/sys/class/thermal", chips = root + "/sys/class/hwmon";
    for (const std::string& zone : names_in(zones))
      if (zone.starts_with("thermal_zone")) look(zones + "/" + zone + "/temp");
    for (const std::string& chip : names_in(chips)) {
      for (const std::string& file : names_in(chips + "/" + chip))
        if (file.starts_with("temp") && file.ends_with("_input"))
          look(chips + "/" + chip + "/" + file);
    }
  }

  void read_throttling(HostMetrics& out) const {
    const auto flags =
        read_kernel_file(root + "/sys/devices/platform/soc/soc:firmware/get_throttled", 64);
    const auto words = flags ? words_of(*flags) : std::vector<std::string_view>();
    if (words.size() == 1) {
      std::string_view word = words.front();
      if (word.starts_with("0x")) word.remove_prefix(2);
      std::int64_t bits = 0;
      const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), bits, 16);
      if (error == std::errc() && end == word.data() + word.size())
        return out.set_throttled((bits & kThrottledNow) != 0);
    }
    // Newer kernels show the weak power supply alone, as an alarm of the chip rpi_volt.
    const std::string chips = root + "/sys/class/hwmon";
    for (const std::string& chip : names_in(chips)) {
      const auto name = read_kernel_file(chips + "/" + chip + "/name", 64);
      if (!name || !name->starts_with("rpi_volt")) continue;
      if (const auto alarm = read_number(chips + "/" + chip + "/in0_lcrit_alarm"))
        return out.set_throttled(*alarm != 0);
    }
  }

  std::string root, disk;
  KernelFile stat, memory, load, uptime, interfaces;
  std::optional<CpuTimes> cpu_before;
};

HostMeter::HostMeter(std::string root, std::string disk)
    : impl_(std::make_unique<Impl>(std::move(root), std::move(disk))) {}
HostMeter::~HostMeter() = default;

HostMetrics HostMeter::sample() {
  HostMetrics out;
  impl_->read_cpu(out);
  impl_->read_memory(out);
  impl_->read_disk(out);
  impl_->read_load(out);
  impl_->read_uptime(out);
  impl_->read_network(out);
  impl_->read_temperature(out);
  impl_->read_throttling(out);
  return out;
}

}  // namespace flock::agent

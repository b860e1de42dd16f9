// SPDX-License-Identifier: Apache-2.0
#include "app/hardware.h"

#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include <filesystem>

#include "base/files.h"

namespace flock::agent {
namespace {

std::string first_line(const char* path) {
  const std::string text = read_file(path).value_or("");
  return text.substr(0, text.find('\n'));
}

std::string os_name() {
  const std::string text = read_file("/etc/os-release").value_or("");
  const std::size_t at = text.find("PRETTY_NAME=\"");
  if (at == std::string::npos) return "";
  return text.substr(at + 13, text.find('"', at + 13) - at - 13);
}

// localtime(5): /etc/localtime is a link into zoneinfo; Debian keeps the name beside it too.
std::string time_zone() {
  std::error_code none;
  const std::string target = std::filesystem::read_symlink("/etc/localtime", none).string();
  constexpr std::string_view kFolder = "zoneinfo/";
  const std::size_t at = target.find(kFolder);
  return at != std::string::npos ? target.substr(at + kFolder.size()) : first_line("/etc/timezone");
}

}  // namespace

device::v1::Hardware read_hardware() {
  device::v1::Hardware hardware;
  utsname names{};
  if (::uname(&names) == 0) {
    const std::string machine = names.machine;
    // OCI names (image-spec, image-index.md).
    if (machine == "x86_64")
      hardware.set_architecture("amd64");
    else if (machine == "aarch64")
      hardware.set_architecture("arm64");
    else if (machine.starts_with("armv")) {
      hardware.set_architecture("arm");
      hardware.set_variant(machine.substr(3, 2));
    } else
      hardware.set_architecture(machine);
    hardware.set_kernel(names.release);
    hardware.set_hostname(names.nodename);
  }
  struct sysinfo info{};
  if (::sysinfo(&info) == 0)
    hardware.set_memory_bytes(static_cast<std::int64_t>(info.totalram) * info.mem_unit);
  hardware.set_cpus(static_cast<std::uint32_t>(::get_nprocs()));
  hardware.set_os(os_name());
  hardware.set_machine_id(first_line("/etc/machine-id"));
  hardware.set_time_zone(time_zone());
  return hardware;
}

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "flock/device/v1/device.pb.h"

namespace flock::bench {

// What a device with three services reports when nothing changed. Without seq and times.
inline device::v1::ReportedState keep_alive(const std::string& id) {
  device::v1::ReportedState state;
  state.set_boot_id(id);
  state.set_desired_version(7);
  state.set_release_id(id);
  state.set_rollout_id(id);
  state.set_phase(device::v1::ReportedState::CONFIRMED);
  state.set_agent_version("0.1.0");
  for (const char* name : {"web", "worker", "database"}) {
    auto* service = state.add_services();
    service->set_name(name);
    service->set_image_digest("sha256:" + std::string(64, 'd'));
    service->set_container_id(std::string(64, 'c'));
    service->set_state(device::v1::ServiceState::RUNNING);
    service->set_health(device::v1::ServiceState::HEALTHY);
    service->set_started_at_ms(1'780'000'000'000);
  }
  auto* hardware = state.mutable_hardware();
  hardware->set_architecture("arm64");
  hardware->set_os("Debian GNU/Linux 12 (bookworm)");
  hardware->set_kernel("6.1.0-13-arm64");
  hardware->set_hostname("device");
  return state;
}

}  // namespace flock::bench

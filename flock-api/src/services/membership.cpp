// SPDX-License-Identifier: Apache-2.0
#include "services/membership.h"

#include "async/deadline.h"
#include "base/error.h"
#include "base/log.h"

namespace flock::services {
namespace {

constexpr Duration kTellTime{3000};

}  // namespace

Task<void> announce(mqtt::Bus& bus, Membership what, internal::v1::DeviceMembership event) {
  mqtt::Message message;
  message.topic = std::string("flock/internal/v1/device/") +
                  (what == Membership::kRegistered ? "registered" : "removed");
  message.payload = event.SerializeAsString();
  try {
    co_await with_deadline(bus.publish(std::move(message)), kTellTime, "announcing a device");
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    log::warn("nobody was told that a device came or went", error, {{"device", event.device_id()}});
  }
}

internal::v1::DeviceMembership membership(std::string org, std::string fleet, std::string device,
                                          std::string reason) {
  internal::v1::DeviceMembership event;
  event.set_org_id(std::move(org));
  event.set_fleet_id(std::move(fleet));
  event.set_device_id(std::move(device));
  event.set_reason(std::move(reason));
  event.set_at_ms(to_unix_ms(system_clock().now()));
  return event;
}

}  // namespace flock::services

// SPDX-License-Identifier: Apache-2.0
// What customers are told of, made from what the backend's targets tell each other
// (docs/events.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace flock::domain {

// News for customers, before it is known what they call the things it is about.
struct InternalEvent {
  enum class About { kDevice, kRollout, kDeployment };
  std::string id;    // a UUIDv7: the same for the same message, whoever reads it
  std::string type;  // "device.online"
  About about = About::kDevice;
  std::string org, subject;  // UUIDs; the subject is what `about` says
  std::int64_t at_ms = 0;
  std::string data;  // a JSON object: what only this type says
};

// A message of flock/internal/v1/`leaf`. Nothing: it is no customer's concern. Throws
// Error{kInvalidArgument} that says why it cannot be read.
std::optional<InternalEvent> read_internal_event(std::string_view leaf, std::string_view payload);

// What the database knows of the subject; "" where there is none.
struct EventSubject {
  std::string device_name, device_labels;  // of a device; the labels are a JSON object
  std::string fleet_id, fleet_slug;
  std::string deployment_id, release_id, release_version;  // of a deployment or a rollout
};

struct CustomerEvent {
  std::string id, org;
  std::string topic;  // "flock/events/v1/device/online"
  std::string payload;
};
CustomerEvent customer_event(InternalEvent event, const EventSubject& subject);

// Every type that there is; each has a JSON Schema in proto/events.
const std::vector<std::string_view>& customer_event_types();

}  // namespace flock::domain

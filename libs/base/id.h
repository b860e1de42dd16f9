// SPDX-License-Identifier: Apache-2.0
// Opaque identifiers: lower-case UUIDv7 text (RFC 9562), one C++ type per kind so that they cannot
// be mixed up.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace flock {

// A fresh UUIDv7: sorts by creation time in this process even within one millisecond.
std::string new_uuid();
// A UUIDv7 of this time whose random part is taken from the first 10 bytes of `bits`, which must be
// as good as random (a digest): the same for the same arguments.
std::string uuid_of(std::uint64_t unix_ms, std::string_view bits);
// Canonical 8-4-4-4-12 lower-case hexadecimal form.
bool is_uuid(std::string_view text) noexcept;

template <class Tag>
class Id {
 public:
  Id() = default;  // empty: "none"; never valid on the wire
  static Id fresh() { return Id(new_uuid()); }
  // Throws Error{kInvalidArgument} naming `what` when `text` is not a UUID.
  static Id parse(std::string_view text, std::string_view what = Tag::kName);
  // For text that is known to be valid, such as a database column.
  static Id trusted(std::string text) { return Id(std::move(text)); }

  const std::string& text() const noexcept { return text_; }
  bool empty() const noexcept { return text_.empty(); }
  auto operator<=>(const Id&) const = default;

 private:
  explicit Id(std::string text) : text_(std::move(text)) {}
  std::string text_;
};

void require_uuid(std::string_view text, std::string_view what);

template <class Tag>
Id<Tag> Id<Tag>::parse(std::string_view text, std::string_view what) {
  require_uuid(text, what);
  return Id(std::string(text));
}

struct OrgTag {
  static constexpr std::string_view kName = "organization id";
};
struct FleetTag {
  static constexpr std::string_view kName = "fleet id";
};
struct DeviceTag {
  static constexpr std::string_view kName = "device id";
};
struct ReleaseTag {
  static constexpr std::string_view kName = "release id";
};
struct DeploymentTag {
  static constexpr std::string_view kName = "deployment id";
};
struct RolloutTag {
  static constexpr std::string_view kName = "rollout id";
};
struct KeyTag {
  static constexpr std::string_view kName = "key id";
};

using OrgId = Id<OrgTag>;
using FleetId = Id<FleetTag>;
using DeviceId = Id<DeviceTag>;
using ReleaseId = Id<ReleaseTag>;
using DeploymentId = Id<DeploymentTag>;
using RolloutId = Id<RolloutTag>;
using KeyId = Id<KeyTag>;

}  // namespace flock

template <class Tag>
struct std::hash<flock::Id<Tag>> {
  std::size_t operator()(const flock::Id<Tag>& id) const noexcept {
    return std::hash<std::string>()(id.text());
  }
};

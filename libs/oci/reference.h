// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace flock::oci {

// "registry.example:5000/acme/web:1.2@sha256:..." (distribution's reference grammar). Without a
// registry: docker.io, and "library/" before a single name, as everywhere.
struct Reference {
  std::string registry, repository, tag,
      digest;  // tag defaults to "latest" when there is no digest either
  std::string name() const { return registry + "/" + repository; }
  std::string text() const;
};
// "sha256:" and 64 lower-case hexadecimal digits.
bool is_digest(std::string_view text);
// Throws Error{kInvalidArgument} with the reason.
Reference parse_reference(std::string_view text);

}  // namespace flock::oci

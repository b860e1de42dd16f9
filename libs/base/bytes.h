// SPDX-License-Identifier: Apache-2.0
// Text encodings of bytes (RFC 4648). Bytes are carried as std::string.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace flock {

std::string to_hex(std::string_view bytes);
std::optional<std::string> from_hex(std::string_view text);
std::string to_base64(std::string_view bytes);
std::optional<std::string> from_base64(std::string_view text);
// base64url without padding, as in JOSE.
std::string to_base64url(std::string_view bytes);
std::optional<std::string> from_base64url(std::string_view text);
// Percent-encodes everything outside RFC 3986 "unreserved".
std::string url_encode(std::string_view text);

}  // namespace flock

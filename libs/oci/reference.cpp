// SPDX-License-Identifier: Apache-2.0
#include "oci/reference.h"

#include <algorithm>

#include "base/error.h"

namespace flock::oci {
namespace {

constexpr std::string_view kLower = "abcdefghijklmnopqrstuvwxyz0123456789";

Error bad(std::string_view text, const char* reason) {
  return Error(Code::kInvalidArgument, std::string("not an image reference: ") + reason)
      .with("image", std::string(text.substr(0, 200)))
      .hint("write it like registry.example/team/app:1.0");
}

// Distribution's grammar: runs of letters and digits, parted by one '.', one or two '_', or any
// '-'.
bool separators_are_single(std::string_view part) {
  for (std::size_t i = 0; i < part.size();) {
    const std::size_t end = std::min(part.find_first_of(kLower, i), part.size());
    const std::string_view run = part.substr(i, end - i);
    const bool good = run.empty() || run == "." || run == "_" || run == "__" ||
                      run.find_first_not_of('-') == std::string_view::npos;
    if (!good) return false;
    i = end + 1;
  }
  return true;
}

// NAME, NAME:PORT or [IPv6]:PORT.
bool is_host(std::string_view host) {
  const std::size_t colon = host.rfind(':');
  std::string_view name = host;
  if (colon != std::string_view::npos && !host.ends_with(']')) {
    const std::string_view port = host.substr(colon + 1);
    if (port.empty() || port.size() > 5 ||
        port.find_first_not_of("0123456789") != std::string_view::npos)
      return false;
    name = host.substr(0, colon);
  }
  if (name.starts_with('[') && name.ends_with(']'))
    return name.size() > 2 &&
           name.substr(1, name.size() - 2).find_first_not_of("0123456789abcdefABCDEF.:") ==
               std::string_view::npos;
  return !name.empty() && name.find_first_not_of(
                              "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") ==
                              std::string_view::npos;
}

bool is_path_part(std::string_view part) {
  return !part.empty() && separators_are_single(part) &&
         kLower.find(part.front()) != std::string_view::npos &&
         kLower.find(part.back()) != std::string_view::npos &&
         part.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789._-") ==
             std::string_view::npos;
}

}  // namespace

bool is_digest(std::string_view text) {
  return text.starts_with("sha256:") && text.size() == 71 &&
         text.find_first_not_of("0123456789abcdef", 7) == std::string_view::npos;
}

std::string Reference::text() const {
  return name() + (tag.empty() ? "" : ":" + tag) + (digest.empty() ? "" : "@" + digest);
}

Reference parse_reference(std::string_view text) {
  Reference out;
  std::string_view rest = text;
  if (rest.empty() || rest.size() > 512) throw bad(text, "it is empty or too long");
  if (const std::size_t at = rest.find('@'); at != std::string_view::npos) {
    out.digest = rest.substr(at + 1);
    rest = rest.substr(0, at);
    if (!is_digest(out.digest)) {
      throw bad(text, "a digest is sha256: and 64 hexadecimal digits");
    }
  }
  const std::size_t slash = rest.rfind('/'), colon = rest.rfind(':');
  if (colon != std::string_view::npos && (slash == std::string_view::npos || colon > slash)) {
    out.tag = rest.substr(colon + 1);
    rest = rest.substr(0, colon);
    if (out.tag.empty() || out.tag.size() > 128 || out.tag.front() == '.' ||
        out.tag.front() == '-' ||
        out.tag.find_first_not_of(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") !=
            std::string::npos) {
      throw bad(text, "the tag is not valid");
    }
  }
  if (out.tag.empty() && out.digest.empty()) out.tag = "latest";
  // The first part is a registry when it looks like a host.
  const std::size_t first = rest.find('/');
  const std::string_view host = rest.substr(0, first);
  if (first != std::string_view::npos &&
      (host.find_first_of(".:") != std::string_view::npos || host == "localhost")) {
    out.registry = host;
    rest.remove_prefix(first + 1);
    if (!is_host(out.registry)) throw bad(text, "the registry is not a host");
  } else {
    out.registry = "docker.io";
    if (first == std::string_view::npos) out.repository = "library/";
  }
  out.repository += rest;
  for (std::string_view path = rest;;) {
    const std::size_t end = path.find('/');
    if (!is_path_part(path.substr(0, end)))
      throw bad(text, "a name is lower-case letters, digits and . _ - between them");
    if (end == std::string_view::npos) break;
    path.remove_prefix(end + 1);
  }
  return out;
}

}  // namespace flock::oci

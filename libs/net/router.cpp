// SPDX-License-Identifier: Apache-2.0
#include "net/router.h"

#include <algorithm>

namespace flock::net {
namespace {

template <class Text>
std::vector<Text> segments(std::string_view path, Text (*read)(std::string_view)) {
  std::vector<Text> out;
  if (path.starts_with('/')) path.remove_prefix(1);
  for (;;) {
    const std::size_t slash = path.find('/');
    out.push_back(read(path.substr(0, slash)));
    if (slash == std::string_view::npos) return out;
    path.remove_prefix(slash + 1);
  }
}

// How many literal segments matched, or -1.
int match_pattern(std::string_view pattern, const std::vector<std::string>& path,
                  Parameters& parameters) {
  const auto parts =
      segments<std::string_view>(pattern, [](std::string_view part) { return part; });
  if (parts.size() != path.size()) return -1;
  int literals = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].starts_with('{')) {
      if (path[i].empty()) return -1;
      parameters.emplace(parts[i].substr(1, parts[i].size() - 2), path[i]);
    } else if (parts[i] == path[i]) {
      ++literals;
    } else {
      return -1;
    }
  }
  return literals;
}

}  // namespace

void Router::add(std::string method, std::string pattern, RouteHandler handler) {
  routes_.push_back({std::move(method), std::move(pattern), std::move(handler)});
}

Router::Match Router::match(std::string_view method, std::string_view path) const {
  Match best;
  int best_literals = -1;
  // Decoded after the split: "a%2Fb" is one segment (RFC 3986, 2.2).
  const auto wanted = segments<std::string>(path, percent_decode);
  for (const Route& route : routes_) {
    Parameters parameters;
    const int literals = match_pattern(route.pattern, wanted, parameters);
    if (literals < 0) continue;
    best.allowed.push_back(route.method);
    if (route.method != method || literals <= best_literals) continue;
    best_literals = literals;
    best.route = &route;
    best.parameters = std::move(parameters);
  }
  if (best.route != nullptr) best.allowed.clear();
  return best;
}

}  // namespace flock::net

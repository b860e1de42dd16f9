// SPDX-License-Identifier: Apache-2.0
#include "net/router.h"

#include <algorithm>

namespace flock::net {
namespace {

std::vector<std::string_view> segments(std::string_view path) {
  std::vector<std::string_view> out;
  if (path.starts_with('/')) path.remove_prefix(1);
  for (;;) {
    const std::size_t slash = path.find('/');
    out.push_back(path.substr(0, slash));
    if (slash == std::string_view::npos) return out;
    path.remove_prefix(slash + 1);
  }
}

// How many literal segments matched, or -1.
int match_pattern(std::string_view pattern, const std::vector<std::string_view>& path,
                  Parameters& parameters) {
  const auto parts = segments(pattern);
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
  const auto wanted = segments(path);
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

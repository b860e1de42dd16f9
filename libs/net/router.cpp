// SPDX-License-Identifier: Apache-2.0
#include "net/router.h"

#include <optional>

namespace flock::net {
namespace {

// Takes the first segment off `path`; false when there was none left.
bool next_segment(std::optional<std::string_view>& path, std::string_view& segment) {
  if (!path) return false;
  const std::size_t slash = path->find('/');
  segment = path->substr(0, slash);
  if (slash == std::string_view::npos)
    path.reset();
  else
    path->remove_prefix(slash + 1);
  return true;
}

std::optional<std::string_view> without_slash(std::string_view path) {
  if (path.starts_with('/')) path.remove_prefix(1);
  return path;
}

bool is_bound(std::string_view part) { return part.starts_with('{'); }

// How many literal segments matched, or -1. Tried for every route of every request: no copies.
int match_pattern(std::string_view pattern, const std::vector<std::string>& path) {
  std::optional<std::string_view> rest = without_slash(pattern);
  std::string_view part;
  int literals = 0;
  for (const std::string& segment : path) {
    if (!next_segment(rest, part)) return -1;
    if (is_bound(part) ? segment.empty() : part != segment) return -1;
    literals += is_bound(part) ? 0 : 1;
  }
  return rest ? -1 : literals;
}

Parameters bind_parameters(std::string_view pattern, const std::vector<std::string>& path) {
  Parameters parameters;
  std::optional<std::string_view> rest = without_slash(pattern);
  std::string_view part;
  for (std::size_t i = 0; next_segment(rest, part); ++i) {
    if (is_bound(part)) parameters.emplace(part.substr(1, part.size() - 2), path[i]);
  }
  return parameters;
}

}  // namespace

void Router::add(std::string method, std::string pattern, RouteHandler handler) {
  routes_.push_back({std::move(method), std::move(pattern), std::move(handler)});
}

Router::Match Router::match(std::string_view method, std::string_view path) const {
  Match best;
  int best_literals = -1;
  // Decoded after the split: "a%2Fb" is one segment (RFC 3986, 2.2).
  std::vector<std::string> wanted;
  std::string_view segment;
  for (auto rest = without_slash(path); next_segment(rest, segment);)
    wanted.push_back(percent_decode(segment));
  for (const Route& route : routes_) {
    const int literals = match_pattern(route.pattern, wanted);
    if (literals < 0) continue;
    best.allowed.push_back(route.method);
    if (route.method != method || literals <= best_literals) continue;
    best_literals = literals;
    best.route = &route;
  }
  if (best.route != nullptr) {
    best.allowed.clear();
    best.parameters = bind_parameters(best.route->pattern, wanted);
  }
  return best;
}

}  // namespace flock::net

// SPDX-License-Identifier: Apache-2.0
#include "net/router.h"

#include <algorithm>

namespace flock::net {
namespace {

template <class Read>
std::vector<std::string> segments(std::string_view path, Read read) {
  std::vector<std::string> out;
  if (path.starts_with('/')) path.remove_prefix(1);
  out.reserve(static_cast<std::size_t>(std::count(path.begin(), path.end(), '/')) + 1);
  for (;;) {
    const std::size_t slash = path.find('/');
    out.emplace_back(read(path.substr(0, slash)));
    if (slash == std::string_view::npos) return out;
    path.remove_prefix(slash + 1);
  }
}

bool is_bound(std::string_view part) { return part.starts_with('{'); }

// How many literal segments matched, or -1.
int match_parts(const std::vector<std::string>& parts, const std::vector<std::string>& path) {
  if (parts.size() != path.size()) return -1;
  int literals = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const bool bound = is_bound(parts[i]);
    if (bound ? path[i].empty() : parts[i] != path[i]) return -1;
    literals += bound ? 0 : 1;
  }
  return literals;
}

}  // namespace

void Router::add(std::string method, std::string pattern, RouteHandler handler) {
  parts_.push_back(segments(pattern, [](std::string_view part) { return part; }));
  routes_.push_back({std::move(method), std::move(pattern), std::move(handler)});
}

Router::Match Router::match(std::string_view method, std::string_view path) const {
  // Decoded after the split: "a%2Fb" is one segment (RFC 3986, 2.2).
  std::vector<std::string> wanted = segments(path, percent_decode);
  Match best;
  int best_literals = -1;
  std::size_t best_at = 0;
  for (std::size_t at = 0; at < routes_.size(); ++at) {
    const int literals = match_parts(parts_[at], wanted);
    if (literals < 0) continue;
    if (routes_[at].method != method) {
      if (best.route == nullptr) best.allowed.push_back(routes_[at].method);
      continue;
    }
    if (literals <= best_literals) continue;
    best_literals = literals;
    best_at = at;
    best.route = &routes_[at];
  }
  if (best.route == nullptr) return best;
  best.allowed.clear();
  const std::vector<std::string>& parts = parts_[best_at];
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (is_bound(parts[i]))
      best.parameters.emplace(parts[i].substr(1, parts[i].size() - 2), std::move(wanted[i]));
  }
  return best;
}

}  // namespace flock::net

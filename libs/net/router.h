// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "net/http_server.h"

namespace flock::net {

using Parameters = std::map<std::string, std::string, std::less<>>;
using RouteHandler = std::function<Task<Reply>(Request, Parameters)>;

// Method and pattern -> handler. "/v1/fleets/{id}" binds one segment, percent-decoded; literal
// segments win over bound ones. What an unknown path or method answers is the caller's business.
class Router {
 public:
  struct Route {
    std::string method, pattern;
    RouteHandler handler;
  };
  struct Match {
    const Route* route = nullptr;  // null: nothing for this path and method
    Parameters parameters;
    std::vector<std::string> allowed;  // methods of the path when only the method is wrong
  };
  void add(std::string method, std::string pattern, RouteHandler handler);
  // `path` as it was sent (Request::raw_path): an encoded slash does not part segments.
  Match match(std::string_view method, std::string_view path) const;
  const std::vector<Route>& routes() const noexcept { return routes_; }

 private:
  std::vector<Route> routes_;
  std::vector<std::vector<std::string>> parts_;  // of each route's pattern
};

}  // namespace flock::net

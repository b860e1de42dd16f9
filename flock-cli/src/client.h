// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/json/fwd.hpp>
#include <functional>
#include <string>
#include <string_view>

#include "async/task.h"
#include "base/error.h"
#include "net/http.h"
#include "net/sse.h"
#include "settings.h"

namespace flock::cli {

// The REST API, one call at a time. A problem document becomes an Error with its detail, hint and
// request id. An access token that is about to expire is refreshed before it is used.
class Client {
 public:
  explicit Client(Settings settings) : settings_(std::move(settings)) {}
  boost::json::value get(const std::string& path) const;
  // A list answer with the items of its pages, `limit` of them at most (0: all). Says on standard
  // error when there are more.
  boost::json::value list(const std::string& path, std::int64_t limit = 1000) const;
  boost::json::value post(const std::string& path, const boost::json::value& body) const;
  boost::json::value send(const std::string& method, const std::string& path,
                          const std::string& body) const;
  // The answer as it came; for `flock api`.
  net::Response raw(const std::string& method, const std::string& path,
                    const std::string& body) const;
  // Server-sent events until `on_event` returns false. Connects again, after the last event's id,
  // when the connection is lost, falls silent or is ended by the server.
  void events(const std::string& path,
              const std::function<bool(const net::SseEvent&)>& on_event) const;
  // A body of any size, chunk by chunk; a refusal is an Error before the first.
  void download(const std::string& path,
                const std::function<void(std::string_view)>& on_chunk) const;
  const Settings& settings() const noexcept { return settings_; }
  // The token to send now, refreshed when it is about to expire.
  const Secret& token() const;

 private:
  net::Headers headers() const;

  mutable Settings settings_;
};

// One exchange with any server, with the CA of the settings. Throws kUnavailable or kTimeout that
// say who could not be reached.
net::Response exchange(const Settings& settings, const std::string& method, const std::string& url,
                       const net::Headers& headers, const std::string& body);
// An answer of status 400 or more as an Error.
Error problem_of(const net::Response& response);

}  // namespace flock::cli

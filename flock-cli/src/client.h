// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/json/fwd.hpp>
#include <functional>
#include <string>

#include "async/task.h"
#include "net/http.h"
#include "net/sse.h"
#include "settings.h"

namespace flock::cli {

// The REST API, one call at a time. A problem document becomes an Error with its detail, hint and
// request id.
class Client {
 public:
  explicit Client(Settings settings) : settings_(std::move(settings)) {}
  boost::json::value get(const std::string& path) const;
  // A list answer with the items of all its pages.
  boost::json::value list(const std::string& path) const;
  boost::json::value post(const std::string& path, const boost::json::value& body) const;
  boost::json::value send(const std::string& method, const std::string& path,
                          const std::string& body) const;
  // The answer as it came; for `flock api`.
  net::Response raw(const std::string& method, const std::string& path,
                    const std::string& body) const;
  // Server-sent events until `on_event` returns false or the stream ends. Connects again when the
  // connection is lost.
  void events(const std::string& path,
              const std::function<bool(const net::SseEvent&)>& on_event) const;
  const Settings& settings() const noexcept { return settings_; }

 private:
  Settings settings_;
};

}  // namespace flock::cli

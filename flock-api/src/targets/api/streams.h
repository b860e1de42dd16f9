// SPDX-License-Identifier: Apache-2.0
// What the routes of server-sent events share: the line is kept alive, the caller is looked at
// again while it lasts, and nobody holds more than some of them.
#pragma once

#include "targets/api/call.h"

namespace flock::targets::api {

class EventSource {
 public:
  virtual ~EventSource() = default;
  // The next events in wire form, waiting for them up to `limit`; "" when there are none. `over`
  // ends the stream after them.
  virtual Task<std::string> next(Duration limit, bool& over) = 0;
  // The last event of a stream that ends although there would be more.
  virtual std::string goodbye(const std::string& reason);
};

// Throws kRateLimited when the caller follows too much already.
net::Reply stream_reply(Call& call, std::shared_ptr<EventSource> source);
// What the reader has seen last, by the header Last-Event-ID.
std::optional<std::string> last_event_id(const net::Request& request);

}  // namespace flock::targets::api

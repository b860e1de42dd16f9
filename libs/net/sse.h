// SPDX-License-Identifier: Apache-2.0
// Server-sent events (WHATWG HTML, 9.2).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace flock::net {

struct SseEvent {
  std::string id, event, data;
};
// One event in wire form; newlines in `data` become several data lines.
std::string format_sse(const SseEvent& event);
inline constexpr std::string_view kSseKeepAlive = ": keep-alive\n\n";

class SseParser {
 public:
  // The events completed by `chunk`. Throws Error{kTooLarge} when one event passes `limit` bytes.
  std::vector<SseEvent> feed(std::string_view chunk);
  explicit SseParser(std::size_t limit = 1 << 20) : limit_(limit) {}

 private:
  std::size_t limit_;
  std::string buffer_;
  SseEvent pending_;
};

}  // namespace flock::net

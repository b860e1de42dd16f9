// SPDX-License-Identifier: Apache-2.0
#include "net/sse.h"

#include "base/error.h"

namespace flock::net {

std::string format_sse(const SseEvent& event) {
  std::string out;
  if (!event.id.empty()) out += "id: " + event.id + "\n";
  if (!event.event.empty()) out += "event: " + event.event + "\n";
  std::string_view rest = event.data;
  for (;;) {
    const std::size_t end = rest.find('\n');
    out += "data: " + std::string(rest.substr(0, end)) + "\n";
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  return out + "\n";
}

std::vector<SseEvent> SseParser::feed(std::string_view chunk) {
  std::vector<SseEvent> events;
  buffer_ += chunk;
  std::size_t start = 0;
  for (std::size_t end; (end = buffer_.find('\n', start)) != std::string::npos; start = end + 1) {
    std::string_view line = std::string_view(buffer_).substr(start, end - start);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) {
      if (!pending_.data.empty() || !pending_.event.empty()) events.push_back(std::move(pending_));
      pending_ = {};
      continue;
    }
    const std::size_t colon = line.find(':');
    const std::string_view field = line.substr(0, colon);
    std::string_view value = colon == std::string_view::npos ? "" : line.substr(colon + 1);
    if (value.starts_with(' ')) value.remove_prefix(1);
    if (field == "data") {
      if (!pending_.data.empty()) pending_.data += '\n';
      pending_.data += value;
    } else if (field == "event") {
      pending_.event = value;
    } else if (field == "id") {
      pending_.id = value;
    }
  }
  buffer_.erase(0, start);
  if (buffer_.size() + pending_.data.size() > limit_)
    throw Error(Code::kTooLarge, "a server-sent event is too large");
  return events;
}

}  // namespace flock::net

// SPDX-License-Identifier: Apache-2.0
// The audit log's line and the chain that the lines of one organization form (docs/audit.md). Pure:
// used by the writer, and by the CLI offline.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/time.h"

namespace flock::audit {

enum class Outcome { kDone, kAborted };
std::string_view to_string(Outcome outcome) noexcept;

// One change by somebody.
struct Event {
  std::string id;
  std::string org;
  TimePoint at;
  std::string actor_kind, actor_id, actor_name;  // kind: user, api_key, device, system, unknown
  std::string action;
  std::string resource_type, resource_id, resource_name;
  std::string request_id, ip;
  Outcome outcome = Outcome::kDone;
  std::string detail = "{}";  // text of a JSON object

  // What makes it one event: a change that was aborted has two, under the same id.
  std::string key() const { return id + (outcome == Outcome::kDone ? "" : "!"); }
};

// The end of a chain: the next line's `prev` and, plus one, its `seq`.
struct Head {
  std::int64_t seq = 0;
  std::string hash = std::string(64, '0');  // of a chain without lines
  bool operator==(const Head&) const = default;
};

// `text` when it is a JSON object, in one line with its keys sorted; otherwise an object that holds
// it as text. So no event is lost for a detail that cannot be read.
std::string canonical_detail(std::string_view text);

// The event as the line that follows `head`, without a newline; moves `head` to it. Fixed order of
// keys: seq, id, at, org, actor, action, resource, request_id, ip, outcome, detail, prev, hash.
// hash = hex(SHA-256(prev + "\n" + the line without its hash)). A detail that would make the line
// longer than 128 KiB is left out and says so (Loki takes 256 KB).
std::string next_line(const Event& event, Head& head);

struct Line {
  Event event;
  std::int64_t seq = 0;
  std::string prev, hash;
  bool intact = false;  // the hash is that of the text
};
// Nothing when the text is not an audit line.
std::optional<Line> read_line(std::string_view text);

// A line's place and time without reading all of it, for long walks. Proves nothing.
struct Glance {
  std::int64_t seq = 0;
  TimePoint at;
};
std::optional<Glance> glance(std::string_view text);

enum class Fault { kNone, kAltered, kRemoved, kReordered, kDuplicate, kUnreadable };
std::string_view to_string(Fault fault) noexcept;

struct Verdict {
  Fault fault = Fault::kNone;  // the first one found
  std::size_t line = 0;        // where, from 1
  std::int64_t seq = 0;        // of which event
  std::string what;            // for people: "event seq 18 is missing"
  std::size_t events = 0;
  std::int64_t first = 0;  // above 1: what came before is not in this file, so it is not proven
  Head head;               // of what was good
};
// False at the end.
using LineReader = std::function<bool(std::string& line)>;
// A file may begin anywhere in the chain and is proven from its first line on. What was cut off its
// end shows only against a head that was kept elsewhere.
Verdict verify_chain(const LineReader& read);

}  // namespace flock::audit

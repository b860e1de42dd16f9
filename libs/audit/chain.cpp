// SPDX-License-Identifier: Apache-2.0
#include "audit/chain.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/json.h"
#include "crypto/keys.h"

namespace flock::audit {
namespace {

namespace bj = boost::json;

constexpr std::size_t kLineLimit = 128 * 1024;
constexpr std::string_view kHashKey = ",\"hash\":\"";
constexpr std::size_t kHashTail = kHashKey.size() + 64 + 2;  // key, digest, "}

bj::value sorted(const bj::value& value) {
  if (const bj::array* items = value.if_array()) {
    bj::array out;
    for (const bj::value& item : *items) out.push_back(sorted(item));
    return out;
  }
  if (!value.is_object()) return value;
  std::vector<std::string> keys;
  for (const auto& member : value.get_object()) keys.emplace_back(member.key());
  std::sort(keys.begin(), keys.end());
  bj::object out;
  for (const std::string& key : keys) out[key] = sorted(value.get_object().at(key));
  return out;
}

void member(std::string& out, std::string_view key, std::string_view text) {
  out += ",\"" + std::string(key) + "\":";
  json::append_quoted(out, text);
}

std::string body_of(const Event& event, const Head& head, const std::string& detail) {
  std::string out = "{\"seq\":" + std::to_string(head.seq + 1);
  member(out, "id", event.id);
  member(out, "at", to_rfc3339(event.at));
  member(out, "org", event.org);
  out += ",\"actor\":{\"kind\":";
  json::append_quoted(out, event.actor_kind);
  member(out, "id", event.actor_id);
  member(out, "name", event.actor_name);
  out += '}';
  member(out, "action", event.action);
  out += ",\"resource\":{\"type\":";
  json::append_quoted(out, event.resource_type);
  member(out, "id", event.resource_id);
  member(out, "name", event.resource_name);
  out += '}';
  member(out, "request_id", event.request_id);
  member(out, "ip", event.ip);
  member(out, "outcome", to_string(event.outcome));
  out += ",\"detail\":" + detail;
  member(out, "prev", head.hash);
  return out;
}

std::string hash_of(const std::string& prev, const std::string& body) {
  return to_hex(crypto::sha256(prev + "\n" + body + "}"));
}

std::string text_at(const bj::object& object, std::string_view key) {
  const bj::value* found = object.if_contains(key);
  if (found == nullptr || !found->is_string())
    throw Error(Code::kInvalidArgument, "no such text").with("key", std::string(key));
  return std::string(found->get_string());
}

const bj::object& object_at(const bj::object& object, std::string_view key) {
  const bj::value* found = object.if_contains(key);
  if (found == nullptr || !found->is_object())
    throw Error(Code::kInvalidArgument, "no such object").with("key", std::string(key));
  return found->get_object();
}

Line parse_line(std::string_view text) {
  const bj::value value = json::parse(text);
  if (!value.is_object()) throw Error(Code::kInvalidArgument, "not an object");
  const bj::object& in = value.get_object();
  const bj::value* seq = in.if_contains("seq");
  if (seq == nullptr || !seq->is_int64()) throw Error(Code::kInvalidArgument, "no seq");
  const bj::object &actor = object_at(in, "actor"), &resource = object_at(in, "resource");
  const std::string outcome = text_at(in, "outcome");
  if (outcome != "done" && outcome != "aborted")
    throw Error(Code::kInvalidArgument, "unknown outcome");
  Line line;
  line.seq = seq->get_int64();
  line.prev = text_at(in, "prev");
  line.hash = text_at(in, "hash");
  Event& event = line.event;
  event.id = text_at(in, "id");
  event.org = text_at(in, "org");
  event.at = parse_rfc3339(text_at(in, "at"));
  event.actor_kind = text_at(actor, "kind");
  event.actor_id = text_at(actor, "id");
  event.actor_name = text_at(actor, "name");
  event.action = text_at(in, "action");
  event.resource_type = text_at(resource, "type");
  event.resource_id = text_at(resource, "id");
  event.resource_name = text_at(resource, "name");
  event.request_id = text_at(in, "request_id");
  event.ip = text_at(in, "ip");
  event.outcome = outcome == "done" ? Outcome::kDone : Outcome::kAborted;
  event.detail = bj::serialize(object_at(in, "detail"));
  // The bytes are judged, not what they mean: a changed space is a change.
  if (text.size() > kHashTail) {
    const std::string body(text.substr(0, text.size() - kHashTail));
    line.intact = text.substr(body.size()) == std::string(kHashKey) + line.hash + "\"}" &&
                  hash_of(line.prev, body) == line.hash;
  }
  return line;
}

std::string events_missing(std::int64_t first, std::int64_t last) {
  if (first == last) return "event seq " + std::to_string(first) + " is missing";
  return "events seq " + std::to_string(first) + " to " + std::to_string(last) + " are missing";
}

// Whether the event that is not in its place comes later.
bool comes_later(const LineReader& read, std::int64_t seq) {
  for (std::string text; read(text);) {
    const auto line = read_line(text);
    if (line && line->intact && line->seq == seq) return true;
  }
  return false;
}

}  // namespace

std::string_view to_string(Outcome outcome) noexcept {
  return outcome == Outcome::kDone ? "done" : "aborted";
}

std::string_view to_string(Fault fault) noexcept {
  switch (fault) {
    case Fault::kNone:
      return "none";
    case Fault::kAltered:
      return "altered";
    case Fault::kRemoved:
      return "removed";
    case Fault::kReordered:
      return "reordered";
    case Fault::kDuplicate:
      return "duplicate";
    case Fault::kUnreadable:
      return "unreadable";
  }
  return "none";
}

std::string canonical_detail(std::string_view text) {
  if (text.empty()) return "{}";
  try {
    const bj::value value = json::parse(text);
    if (value.is_object()) return bj::serialize(sorted(value));
  } catch (const Error&) {
    // Kept as text below.
  }
  std::string out = "{\"text\":";
  json::append_quoted(out, text);
  return out + "}";
}

std::string next_line(const Event& event, Head& head) {
  std::string body = body_of(event, head, event.detail);
  if (body.size() > kLineLimit)
    body = body_of(event, head, "{\"left_out_bytes\":" + std::to_string(event.detail.size()) + "}");
  head.hash = hash_of(head.hash, body);
  ++head.seq;
  return body + std::string(kHashKey) + head.hash + "\"}";
}

std::optional<Line> read_line(std::string_view text) {
  try {
    return parse_line(text);
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::optional<Glance> glance(std::string_view text) {
  constexpr std::string_view kSeq = "{\"seq\":", kAt = "\",\"at\":\"";
  if (!text.starts_with(kSeq)) return std::nullopt;
  Glance out;
  std::from_chars(text.data() + kSeq.size(), text.data() + text.size(), out.seq);
  const std::size_t at = text.substr(0, 256).find(kAt);
  if (out.seq < 1 || at == text.npos) return std::nullopt;
  try {
    out.at = parse_rfc3339(text.substr(at + kAt.size(), 24));
  } catch (const Error&) {
    return std::nullopt;
  }
  return out;
}

Verdict verify_chain(const LineReader& read) {
  Verdict out;
  std::string org;
  const auto fault = [&](Fault kind, std::int64_t seq, std::string what) {
    out.fault = kind;
    out.seq = seq;
    out.what = std::move(what);
    return out;
  };
  for (std::string text; read(text);) {
    ++out.line;
    const std::int64_t expected = out.head.seq + 1;
    const auto line = read_line(text);
    if (!line) return fault(Fault::kUnreadable, expected, "this is not an audit event");
    const std::string named = "event seq " + std::to_string(line->seq);
    if (!line->intact) return fault(Fault::kAltered, line->seq, named + " was altered");
    if (out.events == 0) {
      out.first = line->seq;
      org = line->event.org;
      if (line->seq == 1 && line->prev != Head().hash)
        return fault(Fault::kAltered, 1, named + " was altered: nothing can come before it");
    } else if (line->event.org != org) {
      return fault(Fault::kAltered, line->seq, named + " is another organization's");
    } else if (line->seq < out.first) {
      return fault(Fault::kReordered, line->seq, named + " stands behind later ones");
    } else if (line->seq < expected) {
      return fault(Fault::kDuplicate, line->seq, named + " is there twice");
    } else if (line->seq > expected) {
      if (comes_later(read, expected))
        return fault(Fault::kReordered, line->seq,
                     named + " stands before event seq " + std::to_string(expected));
      return fault(Fault::kRemoved, expected, events_missing(expected, line->seq - 1));
    } else if (line->prev != out.head.hash) {
      return fault(Fault::kAltered, line->seq,
                   named + " does not follow event seq " + std::to_string(line->seq - 1) +
                       ": one of the two was altered");
    }
    ++out.events;
    out.head = {line->seq, line->hash};
  }
  return out;
}

}  // namespace flock::audit

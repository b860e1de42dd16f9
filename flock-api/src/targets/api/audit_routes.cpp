// SPDX-License-Identifier: Apache-2.0
// Who did what: read, exported as the chain it is, and anchored elsewhere by its head.
#include "targets/audit/audit_target.h"

#include "base/bytes.h"
#include "targets/api/call.h"

namespace flock::targets::api {
namespace {

using Store = std::shared_ptr<stores::AuditStore>;

std::optional<TimePoint> read_time(const net::Request& request, const char* name) {
  const auto text = request.query(name);
  if (!text || text->empty()) return std::nullopt;
  try {
    return parse_rfc3339(*text);
  } catch (const Error& error) {
    throw Error(Code::kInvalidArgument, "a time in the query cannot be read")
        .problems({{"?" + std::string(name), "invalid", error.message()}});
  }
}

std::string read_text(const net::Request& request, const char* name) {
  std::string text = request.query(name).value_or("");
  if (text.size() > 1024)
    throw Error(Code::kInvalidArgument, "a filter is too long")
        .problems({{"?" + std::string(name), "too_long", "at most 1024 bytes"}});
  return text;
}

stores::AuditFilter read_filter(const net::Request& request) {
  stores::AuditFilter filter;
  filter.from = read_time(request, "from");
  filter.to = read_time(request, "to");
  filter.actor = read_text(request, "actor");
  filter.action = read_text(request, "action");
  filter.resource_type = read_text(request, "resource_type");
  filter.resource_id = read_text(request, "resource_id");
  const std::string outcome = read_text(request, "outcome");
  if (outcome == "done") filter.outcome = audit::Outcome::kDone;
  if (outcome == "aborted") filter.outcome = audit::Outcome::kAborted;
  if (!outcome.empty() && !filter.outcome)
    throw Error(Code::kInvalidArgument, "there is no such outcome")
        .problems({{"?outcome", "invalid", "done or aborted"}});
  return filter;
}

Task<net::Reply> list_audit(Store store, OrgId org, net::Request request) {
  allow_query(request, {"from", "to", "actor", "action", "resource_type", "resource_id", "outcome",
                        "page_size", "page_token"});
  const Page page = read_page(request);
  const stores::AuditFilter filter = read_filter(request);
  stores::AuditPage found;
  try {
    found = co_await store->page(org, filter, page.after, static_cast<std::size_t>(page.size));
  } catch (const Error& error) {
    if (error.code() != Code::kInvalidArgument) throw;
    throw bad_parameter("page_token", "it is not one of ours");
  }
  bj::array items;
  for (const std::string& line : found.lines) items.push_back(json::parse(line));
  co_return json_reply(
      200, bj::object{{"items", std::move(items)}, {"next_page_token", to_base64url(found.next)}});
}

// A cell that a spreadsheet would run is text with a sign before it.
std::string cell(std::string_view text) {
  std::string out = "\"";
  if (!text.empty() && std::string_view("=+-@\t\r").find(text.front()) != std::string_view::npos)
    out += '\'';
  for (const char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + "\"";
}

constexpr const char* kCsvHead =
    "seq,at,actor_kind,actor_id,actor_name,action,resource_type,resource_id,resource_name,outcome,"
    "request_id,ip,id,detail\r\n";

std::string csv_row(const std::string& text) {
  const auto line = audit::read_line(text);
  if (!line) return "";
  const audit::Event& e = line->event;
  std::string out = std::to_string(line->seq);
  for (const std::string& value :
       {to_rfc3339(e.at), e.actor_kind, e.actor_id, e.actor_name, e.action, e.resource_type,
        e.resource_id, e.resource_name, std::string(audit::to_string(e.outcome)), e.request_id,
        e.ip, e.id, e.detail})
    out += "," + cell(value);
  return out + "\r\n";
}

Task<void> write_export(Store store, OrgId org, std::optional<stores::AuditRange> range, bool csv,
                        net::BodyWriter& out) {
  std::string block = csv ? kCsvHead : "";
  if (range) {
    std::int64_t seq = range->first;
    const auto visit = [&](const std::string& text) -> Task<bool> {
      if (const auto line = audit::glance(text)) seq = line->seq;
      if (seq > range->last) co_return false;
      block += csv ? csv_row(text) : text + "\n";
      if (block.size() >= 64 * 1024) co_await out.write(std::exchange(block, ""));
      co_return true;
    };
    co_await store->walk(org, range->first, visit);
  }
  if (!block.empty()) co_await out.write(block);
}

Task<net::Reply> export_audit(Store store, OrgId org, net::Request request) {
  for (const char* filter : {"actor", "action", "resource_type", "resource_id", "outcome"}) {
    if (request.query(filter))
      throw Error(Code::kInvalidArgument, "a filtered export would be no chain")
          .problems({{"?" + std::string(filter), "unknown_parameter",
                      "an export is all of a time, so that it can be verified"}})
          .hint("GET /v1/audit filters");
  }
  allow_query(request, {"from", "to", "format"});
  const std::string format = request.query("format").value_or("jsonl");
  if (format != "jsonl" && format != "csv")
    throw Error(Code::kInvalidArgument, "there is no such format")
        .problems({{"?format", "invalid", "jsonl or csv"}});
  const bool csv = format == "csv";
  // Before the first byte: what fails here is still a problem document.
  const auto range = co_await stores::find_range(*store, org, read_time(request, "from"),
                                                 read_time(request, "to"));
  net::Reply reply;
  reply.response.headers.add("Content-Type", csv ? "text/csv" : "application/jsonl");
  reply.response.headers.add("Content-Disposition", "attachment; filename=audit." + format);
  reply.response.headers.add("Cache-Control", "no-store");
  reply.stream = [store, org, range, csv](net::BodyWriter& out) {
    return write_export(store, org, range, csv, out);
  };
  co_return reply;
}

Task<net::Reply> audit_head(Store store, OrgId org) {
  const audit::Head head = co_await store->head(org);
  co_return json_reply(
      200,
      bj::object{{"seq", head.seq}, {"hash", head.hash}, {"at", to_rfc3339(system_clock().now())}});
}

}  // namespace

void add_audit_routes(Context& c) {
  constexpr auto kReads = Permission::kAuditRead;
  const Store store = make_audit_store(c.parts.executor, c.parts.settings);
  c.add(allowed("listAuditEvents", "GET", "/v1/audit", kReads),
        [store](Call& call) { return list_audit(store, call.who.org, call.request); });
  c.add(allowed("exportAuditEvents", "GET", "/v1/audit/export", kReads),
        [store](Call& call) { return export_audit(store, call.who.org, call.request); });
  c.add(allowed("getAuditHead", "GET", "/v1/audit/head", kReads), [store](Call& call) {
    allow_query(call.request, {});
    return audit_head(store, call.who.org);
  });
}

}  // namespace flock::targets::api

// SPDX-License-Identifier: Apache-2.0
// logs: what services write, of many devices as one stream.
#include <boost/json.hpp>
#include <cstdio>
#include <deque>
#include <functional>
#include <unordered_set>

#include "base/bytes.h"
#include "base/json.h"
#include "base/time.h"
#include "commands/live.h"
#include "input.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

constexpr std::size_t kRemembered = 20'000;

// The same device has the same colour, today and tomorrow.
std::string colored(const Output& output, const std::string& device, const std::string& text) {
  if (!output.color) return text;
  constexpr int kColors[] = {36, 33, 32, 35, 34, 96, 93, 92, 95, 94};
  std::uint32_t hash = 2166136261;  // FNV-1a: the same on every machine
  for (const char c : device) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619;
  return "\x1b[" + std::to_string(kColors[hash % std::size(kColors)]) + "m" + text + "\x1b[0m";
}

std::string gap_text(const bj::value& item) {
  const std::string reason = value_at(item, "reason"), count = value_at(item, "count");
  if (reason == "SLOW_READER")
    return "what came from " + value_at(item, "from") + " to " + value_at(item, "to") +
           " was left out: this terminal is slower than the devices write";
  const std::string why = reason == "RATE_LIMITED" ? "the service wrote faster than its limit"
                          : reason == "SPOOL_FULL" ? "the device was offline and its buffer full"
                          : reason == "UNREADABLE" ? "the log was rotated before it was read"
                                                   : "the device did not say why";
  return count + (count == "1" ? " line is" : " lines are") + " missing: " + why;
}

// A tab is harmless in a line; every other control character is not.
std::string line_text(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find('\t', at), text.size());
    out += printable(text.substr(at, end - at));
    if (end < text.size()) out += '\t';
    at = end + 1;
  }
  return out;
}

class Printer {
 public:
  explicit Printer(const Output& output) : output_(output) {}

  // A line that came before, which a resumed stream may send again, is left out.
  void print(const bj::value& item) {
    if (!is_new(item)) return;
    if (output_.format == Format::kJson) {
      std::puts(json_text(item).c_str());
      return;
    }
    const std::string device = value_at(item, "device.name"), id = value_at(item, "device.id"),
                      service = value_at(item, "service");
    std::string at = value_at(item, "at");
    if (output_.terminal && at.size() > 19) at = at.substr(11, 12);
    const std::string source =
        printable(device.empty() ? id : device) + (service.empty() ? "" : "/" + printable(service));
    const std::string head = at + " " + colored(output_, id, source) + "  ";
    if (value_at(item, "kind") == "gap") {
      std::printf("%s%s\n", head.c_str(),
                  painted(output_, "FAILED", "── " + printable(gap_text(item)) + " ──").c_str());
      return;
    }
    const std::string level = value_at(item, "level"), text = value_at(item, "text");
    for (std::size_t start = 0; start <= text.size();) {
      const std::size_t end = std::min(text.find('\n', start), text.size());
      const std::string line = line_text(std::string_view(text).substr(start, end - start));
      const bool bad = level == "ERROR" || level == "FATAL";
      std::printf("%s%s\n", head.c_str(),
                  bad ? painted(output_, "FAILED", line).c_str() : line.c_str());
      start = end + 1;
    }
  }

 private:
  bool is_new(const bj::value& item) {
    if (value_at(item, "number").empty()) return true;
    std::string key;
    for (const char* part : {"device.id", "service", "epoch", "number", "kind"})
      key += value_at(item, part) + "\n";
    if (!seen_.insert(key).second) return false;
    order_.push_back(std::move(key));
    if (order_.size() > kRemembered) {
      seen_.erase(order_.front());
      order_.pop_front();
    }
    return true;
  }

  const Output& output_;
  std::unordered_set<std::string> seen_;
  std::deque<std::string> order_;
};

std::string query_of(Session& s) {
  Query query;
  add_sources(s, query);
  query.add("service", s.arguments.value("service"));
  query.add("level", s.arguments.value("level"));
  query.add("contains", s.arguments.value("grep"));
  return query.text();
}

int follow(Session& s, std::string query, std::int64_t tail) {
  if (s.arguments.has("until"))
    throw Error(Code::kInvalidArgument, "-f goes on for ever; it excludes --until")
        .hint(s.arguments.usage());
  Query more(std::move(query));
  if (s.arguments.has("since"))
    more.add("from", instant("since", s.arguments.required("since")));
  else
    more.add("tail", std::to_string(std::min<std::int64_t>(tail, 1000)));
  Printer printer(s.output);
  s.client.events("/v1/logs:follow" + more.text(), [&](const net::SseEvent& event) {
    if (event.event == "log" || event.event == "gap") printer.print(json::parse(event.data));
    std::fflush(stdout);
    return true;  // also after `end`: the stream was only old
  });
  return 0;
}

// Oldest first; page by page when there is no limit, so that it may be more than memory holds.
int read(Session& s, std::string query, std::int64_t lines) {
  Query more(std::move(query));
  if (s.arguments.has("since")) more.add("from", instant("since", s.arguments.required("since")));
  if (s.arguments.has("until")) more.add("to", instant("until", s.arguments.required("until")));
  Printer printer(s.output);
  if (lines > 0) {
    more.add("order", "desc");
    bj::array items = s.client.list("/v1/logs" + more.text(), lines).at("items").as_array();
    if (items.size() > static_cast<std::size_t>(lines))
      items.resize(static_cast<std::size_t>(lines));
    for (auto item = items.rbegin(); item != items.rend(); ++item) printer.print(*item);
    return 0;
  }
  more.add("order", "asc");
  more.add("page_size", "1000");
  for (std::string token;;) {
    Query page(more.text());
    page.add("page_token", token);
    const bj::value answer = s.client.get("/v1/logs" + page.text());
    for (const bj::value& item : answer.at("items").as_array()) printer.print(item);
    token = value_at(answer, "next_page_token");
    if (token.empty()) return 0;
  }
}

int logs(Session& s) {
  const std::int64_t lines =
      number("lines", s.arguments.value("lines", s.arguments.has("since") ? "0" : "100"), 0);
  const std::string query = query_of(s);
  return s.arguments.has("follow") ? follow(s, query, lines) : read(s, query, lines);
}

}  // namespace

Command logs_command() {
  return {.name = "logs",
          .summary = "what services write, of many devices as one stream",
          .verbs = {{.name = "",
                     .usage = "DEVICE|FLEET... [-f] [--since TIME] [--grep TEXT] [--service NAME]",
                     .words = {Kind::kDevice},
                     .flags =
                         std::vector<Flag>{
                             {"follow", "", "go on as they write", 'f'},
                             {"since", "TIME", "10m, or 2026-11-24T10:00:00Z: not before"},
                             {"until", "TIME", "before this"},
                             {"lines", "N", "the newest N; default 100, with --since all", 'n'},
                             {"grep", "TEXT", "lines with this text"},
                             {"service", "NAMES", "of these services, with commas"},
                             {"level", "LEVEL", "debug, info, warn, error or fatal: and above"}} +
                         selection_flags(),
                     .run = logs,
                     .repeats = true}},
          .examples = {"flock logs gw-1 -f", "flock logs --fleet edge --since 10m --level warn",
                       "flock logs gw-1 --service web --grep timeout -o json"}};
}

}  // namespace flock::cli

// SPDX-License-Identifier: Apache-2.0
// For tests: keeps what is pushed as Loki does and refuses what Loki refuses by default: samples
// older than a week, in a stream older than an hour before its newest one, too many labels or too
// long lines, queries over more than 721 hours or 5,000 lines.
#pragma once

#include <algorithm>
#include <boost/json.hpp>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/time.h"
#include "net/http_server.h"

namespace flock::stores {

class LokiImposter {
 public:
  explicit LokiImposter(Executor executor)
      : server_(
            executor, [this](net::Request request) { return answer(std::move(request)); },
            [](const net::Request&, std::exception_ptr) {
              return net::Response{500, {}, "the imposter failed"};
            }) {}

  void listen(std::unique_ptr<net::Listener> listener) { server_.listen(std::move(listener)); }
  Task<void> stop() { co_await server_.stop(); }

  bool away = false;          // 503 to everything
  Duration clock{0};          // how far its clock is ahead
  std::string tenant, token;  // wanted, when set
  int pushes = 0, refused = 0;
  struct Entry {
    std::string line;
    boost::json::object metadata;
  };
  using Stream = std::multimap<std::int64_t, Entry>;
  std::map<std::map<std::string, std::string>, Stream> streams;

  std::size_t lines() const {
    std::size_t count = 0;
    for (const auto& [labels, stream] : streams) count += stream.size();
    return count;
  }

 private:
  static constexpr std::int64_t kHour = 3'600'000'000'000;

  Task<net::Reply> answer(net::Request request) {
    net::Reply reply;
    net::Response& out = reply.response;
    const std::string path = request.path();
    if (away) {
      out = {503, {}, "away"};
    } else if (!tenant.empty() && request.headers.get("X-Scope-OrgID") != tenant) {
      out = {401, {}, "no org id"};
    } else if (!token.empty() && request.headers.get("Authorization") != "Bearer " + token) {
      out = {401, {}, "unauthorized"};
    } else if (path == "/loki/api/v1/push") {
      push(request.body, out);
    } else if (path == "/loki/api/v1/query_range") {
      query(request, out);
    } else if (path == "/loki/api/v1/label/org/values") {
      std::set<std::string> orgs;
      for (const auto& [labels, stream] : streams) orgs.insert(labels.at("org"));
      boost::json::object body{{"status", "success"}};
      if (!orgs.empty()) body["data"] = boost::json::array(orgs.begin(), orgs.end());
      out.body = boost::json::serialize(body);
    } else {
      out = {404, {}, "not found"};
    }
    co_return reply;
  }

  // As Loki: what is fine of a push is kept, the rest refused with 400.
  void push(const std::string& text, net::Response& out) {
    ++pushes;
    out.status = 204;
    const std::int64_t now = (to_unix_ms(system_clock().now()) + clock.count()) * 1'000'000;
    const boost::json::value body = json::parse(text, {.bytes = 64 << 20});
    for (const auto& pushed : body.at("streams").as_array()) {
      std::map<std::string, std::string> labels;
      for (const auto& label : pushed.at("stream").as_object()) {
        const std::string value(label.value().as_string());
        if (!value.empty()) labels[label.key()] = value;
      }
      for (const auto& value : pushed.at("values").as_array()) {
        const std::int64_t ns = std::stoll(std::string(value.at(0).as_string()));
        Entry entry{std::string(value.at(1).as_string()), value.at(2).as_object()};
        const char* fault = fault_of(labels, entry, ns, now);
        if (fault == nullptr) {
          keep(streams[labels], ns, std::move(entry));
        } else {
          ++refused;
          out = {400, {}, fault};
        }
      }
    }
  }

  const char* fault_of(const std::map<std::string, std::string>& labels, const Entry& entry,
                       std::int64_t ns, std::int64_t now) {
    if (labels.empty() || labels.size() > 15) return "at least one label pair is required";
    if (entry.line.size() > 256 * 1024) return "max entry size exceeded";
    for (const auto& fact : entry.metadata) {
      if (!fact.value().is_string()) return "structured metadata is text";
    }
    if (ns < now - 168 * kHour) return "timestamp too old";
    if (ns > now + kHour / 6) return "timestamp too new";
    const auto stream = streams.find(labels);
    if (stream != streams.end() && ns < stream->second.rbegin()->first - kHour)
      return "entry too far behind";
    return nullptr;
  }

  static void keep(Stream& stream, std::int64_t ns, Entry entry) {
    const auto [begin, end] = stream.equal_range(ns);
    for (auto at = begin; at != end; ++at) {
      if (at->second.line == entry.line) return;
    }
    stream.emplace(ns, std::move(entry));
  }

  // {a="b",c="d"}
  static std::map<std::string, std::string> read_selector(const std::string& text) {
    std::map<std::string, std::string> out;
    for (std::size_t at = 1; at < text.size() && text[at] != '}';) {
      const std::size_t equals = text.find('=', at);
      std::size_t end = equals + 2;
      while (text[end] != '"') end += text[end] == '\\' ? 2 : 1;
      out[text.substr(at, equals - at)] =
          json::parse(text.substr(equals + 1, end - equals)).as_string();
      at = end + 1 + (text[end + 1] == ',');
    }
    return out;
  }

  void query(const net::Request& request, net::Response& out) {
    const std::int64_t start = std::stoll(request.query("start").value_or("0")),
                       end = std::stoll(request.query("end").value_or("0"));
    const std::size_t limit = std::stoul(request.query("limit").value_or("100"));
    if (end - start > 721 * kHour || limit > 5000) {
      out = {400, {}, "the query time range exceeds the limit"};
      return;
    }
    const auto wanted = read_selector(request.query("query").value_or("{}"));
    using Found = std::pair<std::int64_t, const Stream::value_type*>;
    std::vector<std::pair<Found, const std::map<std::string, std::string>*>> found;
    for (const auto& [labels, stream] : streams) {
      bool match = true;
      for (const auto& [key, value] : wanted)
        match = match && labels.contains(key) && labels.at(key) == value;
      for (auto at = stream.lower_bound(start); match && at != stream.lower_bound(end); ++at)
        found.push_back({{at->first, &*at}, &labels});
    }
    const bool backward = request.query("direction") != "forward";
    std::sort(found.begin(), found.end(), [&](const auto& a, const auto& b) {
      return backward ? a.first.first > b.first.first : a.first.first < b.first.first;
    });
    if (found.size() > limit) found.resize(limit);
    std::map<const std::map<std::string, std::string>*, boost::json::array> by_stream;
    for (const auto& [sample, labels] : found)
      by_stream[labels].push_back(
          boost::json::array{std::to_string(sample.first), sample.second->second.line});
    boost::json::array result;
    for (auto& [labels, values] : by_stream) {
      boost::json::object stream;
      for (const auto& [key, value] : *labels) stream[key] = value;
      result.push_back(boost::json::object{{"stream", stream}, {"values", std::move(values)}});
    }
    out.body = boost::json::serialize(boost::json::object{
        {"status", "success"}, {"data", {{"resultType", "streams"}, {"result", result}}}});
  }

  net::HttpServer server_;
};

}  // namespace flock::stores

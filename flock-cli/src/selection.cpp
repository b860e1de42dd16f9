// SPDX-License-Identifier: Apache-2.0
#include "selection.h"

#include <boost/json.hpp>

#include "base/bytes.h"
#include "input.h"

namespace flock::cli {
namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string both(const std::string& a, const std::string& b) {
  if (a.empty() || b.empty()) return a + b;
  return "(" + a + ") AND " + b;
}

}  // namespace

std::string label_filter(const std::string& labels) {
  std::string out;
  for (const std::string& item : split(labels)) {
    const std::size_t equals = item.find('=');
    const bool unlike = equals != std::string::npos && equals > 0 && item[equals - 1] == '!';
    const std::string key =
        trimmed(item.substr(0, equals == std::string::npos ? 0 : equals - (unlike ? 1 : 0)));
    if (key.empty() || key.find_first_of(" \"()") != std::string::npos)
      throw Error(Code::kInvalidArgument, "-l " + item + " is not key=value or key!=value")
          .hint("-l site=oslo,stage!=test");
    const std::string value = item.substr(equals + 1);
    out += (out.empty() ? "" : " AND ") + ("labels." + key) + (unlike ? " != " : " = ") +
           quoted(value);
  }
  return out;
}

Selection selection_of(const Session& session) {
  const Arguments& given = session.arguments;
  Selection out;
  out.all = given.has("all");
  for (const std::string& labels : given.values("selector"))
    out.filter += (out.filter.empty() ? "" : " AND ") + label_filter(labels);
  if (given.has("filter")) out.filter = both(given.required("filter"), out.filter);
  out.fleet = given.value("fleet");
  if (out.all && (!out.filter.empty() || !out.fleet.empty()))
    throw Error(Code::kInvalidArgument, "--all excludes --fleet, -l and --filter")
        .hint(given.usage());
  return out;
}

std::string Selection::query() const {
  std::string out;
  if (!fleet.empty()) out += "fleet_id=" + url_encode(fleet);
  if (!filter.empty()) out += (out.empty() ? "" : "&") + ("filter=" + url_encode(filter));
  return out;
}

std::vector<Target> choose_devices(Session& session, const std::string& what) {
  Selection selection = selection_of(session);
  std::vector<Target> out;
  for (const std::string& word : session.arguments.words) out.push_back({word, word});
  if (!out.empty() && !selection.empty())
    throw Error(Code::kInvalidArgument, "names exclude --fleet, -l, --filter and --all")
        .hint(session.arguments.usage());
  if (out.empty()) {
    if (selection.empty())
      throw Error(Code::kInvalidArgument, "missing: a device: its name or id")
          .hint(session.arguments.usage());
    // The same devices that `flock devices ls` shows for these flags.
    if (selection.fleet.empty() && !selection.all)
      selection.fleet = session.client.settings().fleet.value;
    const std::string query = selection.query();
    const auto devices = session.client.list("/v1/devices" + (query.empty() ? "" : "?" + query), 0);
    for (const auto& item : devices.at("items").as_array())
      out.push_back({value_at(item, "id"), value_at(item, "name")});
    if (out.empty()) throw Error(Code::kNotFound, "no device matches").hint("flock devices ls");
    confirm_many(session, what, out.size());
  } else if (out.size() > 1) {
    confirm_many(session, what, out.size());
  }
  return out;
}

}  // namespace flock::cli

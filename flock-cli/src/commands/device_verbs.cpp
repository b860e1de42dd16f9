// SPDX-License-Identifier: Apache-2.0
#include "commands/device_verbs.h"

#include <boost/json.hpp>
#include <cstdio>

#include "base/bytes.h"
#include "base/id.h"
#include "input.h"
#include "selection.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

std::string path_of(const std::string& device) { return "/v1/devices/" + url_encode(device); }

// "site=oslo" sets, "site-" takes away (null, as a merge patch has it).
using Value = bj::value (*)(const std::string&);
bj::object read_pairs(const Session& s, std::size_t first, const char* what, Value value) {
  bj::object out;
  for (std::size_t i = first; i < s.arguments.words.size(); ++i) {
    const std::string& word = s.arguments.words[i];
    const std::size_t equals = word.find('=');
    if (equals != std::string::npos && equals > 0)
      out[word.substr(0, equals)] = value(word.substr(equals + 1));
    else if (word.size() > 1 && word.ends_with('-') && equals == std::string::npos)
      out[word.substr(0, word.size() - 1)] = nullptr;
    else
      throw Error(Code::kInvalidArgument, word + " is neither KEY=VALUE nor KEY-")
          .hint(s.arguments.usage());
  }
  if (out.empty())
    throw Error(Code::kInvalidArgument, std::string("missing: ") + what + " as KEY=VALUE or KEY-")
        .hint(s.arguments.usage());
  return out;
}

bj::value text_value(const std::string& text) { return bj::value(text); }

// A number, true or false is itself; everything else, and what stands in quotes, is a text.
bj::value typed_value(const std::string& text) {
  boost::system::error_code error;
  const bj::value value = bj::parse(text, error);
  const bool typed = !error && (value.is_number() || value.is_bool() || value.is_string());
  return typed ? value : bj::value(text);
}

std::string both(const std::string& fleet, const std::string& filter) {
  if (fleet.empty()) return filter.empty() ? "id:*" : filter;
  const std::string in_fleet = (is_uuid(fleet) ? "fleet_id = \"" : "fleet = \"") + fleet + "\"";
  return filter.empty() ? in_fleet : in_fleet + " AND (" + filter + ")";
}

// The devices that the flags select, changed all or none; what was counted and confirmed is what is
// changed.
int change_selected(Session& s, const std::string& what, bj::object change) {
  Session selected = s;
  selected.arguments.words.clear();
  const std::size_t count = choose_devices(selected, what).size();
  Selection selection = selection_of(s);
  if (selection.fleet.empty() && !selection.all) selection.fleet = s.client.settings().fleet.value;
  change["filter"] = both(selection.fleet, selection.filter);
  change["expected_count"] = count;
  const bj::value operation = s.client.post("/v1/devices:batchUpdate", change);
  print(s.output, operation, {{"OPERATION", "id"}, {"STATE", "state"}, {"DEVICES", "counts.total"}},
        "id");
  return 0;
}

int patch(Session& s, const char* member, bj::value value) {
  const std::string device = s.arguments.word(0, "a device: its name or id");
  print(s.output,
        s.client.send("PATCH", path_of(device), bj::serialize(bj::object{{member, value}})),
        device_columns(), "id");
  return 0;
}

int label(Session& s) {
  if (selection_of(s).empty()) return patch(s, "labels", read_pairs(s, 1, "a label", text_value));
  bj::object set;
  bj::array remove;
  for (const auto& [key, value] : read_pairs(s, 0, "a label", text_value)) {
    if (value.is_null())
      remove.emplace_back(key);
    else
      set[key] = value;
  }
  return change_selected(s, "Label", {{"set_labels", set}, {"remove_labels", remove}});
}

int attr(Session& s) {
  return patch(s, "attributes", read_pairs(s, 1, "an attribute", typed_value));
}

int note(Session& s) {
  return patch(s, "notes", bj::value(s.arguments.word(1, "a note; \"\" for none")));
}

// One POST to each device that is named.
int act(Session& s, const std::string& action, const bj::object& body) {
  bj::array items;
  for (const std::string& device : s.arguments.words)
    items.push_back(s.client.post(path_of(device) + "/actions/" + action, body));
  if (items.empty())
    throw Error(Code::kInvalidArgument, "missing: a device: its name or id")
        .hint(s.arguments.usage());
  const bool one = items.size() == 1;
  print(s.output, one ? items[0] : bj::object{{"items", std::move(items)}}, device_columns(), "id");
  return 0;
}

int move(Session& s) {
  const std::string fleet = s.arguments.required("to");
  if (!selection_of(s).empty()) return change_selected(s, "Move", {{"move_to_fleet_id", fleet}});
  return act(s, "move", {{"fleet_id", fleet}});
}

int decommission(Session& s) {
  bj::object body;
  if (s.arguments.has("reason")) body["reason"] = s.arguments.required("reason");
  const std::size_t count = s.arguments.words.size();
  if (count == 1)
    confirm(s, "Decommission " + s.arguments.words[0] + "? It is revoked for good.");
  else if (count > 1)
    confirm_many(s, "Decommission", count);
  return act(s, "decommission", body);
}

int undelete(Session& s) {
  bj::object body;
  if (s.arguments.has("to")) body["fleet_id"] = s.arguments.required("to");
  return act(s, "undelete", body);
}

int history(Session& s) {
  const std::string device = s.arguments.word(0, "a device: its name or id");
  print(s.output,
        s.client.list(path_of(device) + "/history",
                      number("limit", s.arguments.value("limit", "1000"), 0)),
        {{"AT", "at"}, {"WHAT", "kind"}, {"BY", "actor"}, {"DETAIL", "detail", true}}, "id");
  return 0;
}

int clear_clone(Session& s) { return act(s, "clear-clone-suspicion", {}); }

}  // namespace

std::vector<Verb> device_verbs() {
  const std::vector<Flag> several = selection_flags() + std::vector<Flag>{yes_flag()};
  const Flag to{"to", "FLEET", "the fleet to bring it to", 0, Kind::kFleet};
  return {
      {.name = "label",
       .usage = "DEVICE | -l LABELS | --filter EXPR  KEY=VALUE | KEY-...",
       .words = {Kind::kDevice, Kind::kText},
       .flags = several,
       .run = label,
       .repeats = true},
      {.name = "attr",
       .usage = "DEVICE KEY=VALUE | KEY-...",
       .words = {Kind::kDevice, Kind::kText},
       .run = attr,
       .repeats = true},
      {.name = "note", .usage = "DEVICE TEXT", .words = {Kind::kDevice, Kind::kText}, .run = note},
      {.name = "move",
       .usage = "DEVICE... | -l LABELS | --filter EXPR  --to FLEET",
       .words = {Kind::kDevice},
       .flags = several + std::vector<Flag>{to},
       .run = move,
       .repeats = true},
      {.name = "decommission",
       .usage = "DEVICE... [--reason TEXT] [--yes]",
       .words = {Kind::kDevice},
       .flags = {{"reason", "TEXT", "why, for its history"}, yes_flag()},
       .run = decommission,
       .repeats = true},
      {.name = "undelete",
       .usage = "DEVICE_ID... [--to FLEET]",
       .words = {Kind::kText},
       .flags = {to},
       .run = undelete,
       .repeats = true},
      {.name = "history",
       .usage = "DEVICE [--limit N]",
       .words = {Kind::kDevice},
       .flags = list_flags(),
       .run = history},
      {.name = "clear-clone",
       .usage = "DEVICE...",
       .words = {Kind::kDevice},
       .run = clear_clone,
       .repeats = true}};
}

}  // namespace flock::cli

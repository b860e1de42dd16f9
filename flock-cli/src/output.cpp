// SPDX-License-Identifier: Apache-2.0
#include "output.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>

#include "base/time.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

// Stops at a list and leaves in `path` what is to be read from each of its items.
const bj::value* find(const bj::value& object, std::string_view& path) {
  const bj::value* at = &object;
  while (at != nullptr && !path.empty() && !at->is_array()) {
    const std::string_view key = path.substr(0, path.find('.'));
    path.remove_prefix(std::min(path.size(), key.size() + 1));
    at = at->is_object() ? at->get_object().if_contains(key) : nullptr;
  }
  return at;
}

bool is_time(std::string_view path) { return path.ends_with("_at") || path == "at"; }

std::string span(std::int64_t seconds) {
  if (seconds < 60) return std::to_string(seconds) + "s";
  if (seconds < 3600) return std::to_string(seconds / 60) + "m";
  if (seconds < 86400) return std::to_string(seconds / 3600) + "h";
  return std::to_string(seconds / 86400) + "d";
}

std::string ago(const std::string& time) {
  const auto seconds = (system_clock().now() - parse_rfc3339(time)).count() / 1000;
  if (seconds < 0) return "in " + span(-seconds);
  return span(seconds) + " ago";
}

bool is_state(const Column& column) {
  return column.head == "STATE" || column.head == "PHASE" || column.head == "HEALTH";
}

enum class Mood { kGood, kBad, kBusy, kQuiet };
Mood mood_of(std::string_view state) {
  const auto is_one_of = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), state) != names.end();
  };
  if (is_one_of({"ONLINE", "CONFIRMED", "COMPLETED", "FINAL", "EXECUTED", "HEALTHY"}))
    return Mood::kGood;
  if (is_one_of({"FAILED", "REVOKED", "UNHEALTHY", "EXITED"})) return Mood::kBad;
  if (is_one_of({"", "OFFLINE", "SUPERSEDED", "IDLE", "NO_CHECK", "UNKNOWN"})) return Mood::kQuiet;
  return Mood::kBusy;
}

// Columns on a terminal, counting code points: device names may be in any language.
std::size_t width_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

// On a terminal a time is relative and a state has a sign, which says it without colours too.
std::string cell(const Output& output, const Column& column, std::string value) {
  if (!output.terminal || value.empty()) return value;
  if (is_time(column.path)) return ago(value);
  if (!is_state(column)) return value;
  switch (mood_of(value)) {
    case Mood::kGood:
      return "● " + value;
    case Mood::kBad:
      return "✗ " + value;
    case Mood::kBusy:
      return "… " + value;
    default:
      return "○ " + value;
  }
}

int exit_code(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return 2;
    case Code::kNotFound:
      return 3;
    case Code::kUnauthenticated:
    case Code::kForbidden:
      return 4;
    case Code::kConflict:
    case Code::kPreconditionFailed:
      return 5;
    case Code::kUnavailable:
      return 6;
    case Code::kTimeout:
      return 7;
    default:
      return 1;
  }
}

}  // namespace

std::string value_at(const bj::value& object, std::string_view path) {
  const bj::value* value = find(object, path);
  if (value == nullptr || value->is_null()) return "";
  if (value->is_array() && !path.empty()) {
    std::string joined;
    for (const bj::value& item : value->get_array())
      joined += (joined.empty() ? "" : ",") + value_at(item, path);
    return joined;
  }
  if (value->is_string()) return std::string(value->get_string());
  return bj::serialize(*value);
}

std::string printable(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool c1 = byte == 0xc2 && i + 1 < text.size() &&
                    static_cast<unsigned char>(text[i + 1]) < 0xa0;  // U+0080 to U+009F
    if (byte < 0x20 || byte == 0x7f || c1) {
      out += "\xef\xbf\xbd";
      i += c1 ? 1 : 0;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string painted(const Output& output, std::string_view state, const std::string& text) {
  const Mood mood = mood_of(state);
  if (!output.color || mood == Mood::kQuiet) return text;
  const char* color = mood == Mood::kGood ? "32" : mood == Mood::kBad ? "31" : "33";
  return std::string("\x1b[") + color + "m" + text + "\x1b[0m";
}

std::string render(const Output& output, const bj::value& answer,
                   const std::vector<Column>& columns, std::string_view name_path) {
  if (output.format == Format::kJson) return bj::serialize(answer) + "\n";
  bj::array one;
  std::string_view items_path = "items";
  const bj::value* list = find(answer, items_path);
  if (list == nullptr || !list->is_array()) one.push_back(answer);
  const bj::array& items = list && list->is_array() ? list->get_array() : one;
  std::string out;
  if (output.format == Format::kName) {
    for (const bj::value& item : items) out += printable(value_at(item, name_path)) + "\n";
    return out;
  }
  std::vector<std::vector<std::string>> rows;
  if (output.headers && !items.empty()) {
    auto& head = rows.emplace_back();
    for (const Column& column : columns) head.push_back(column.head);
  }
  const std::size_t heads = rows.size();
  for (const bj::value& item : items) {
    auto& row = rows.emplace_back();
    for (const Column& column : columns)
      row.push_back(cell(output, column, printable(value_at(item, column.path))));
  }
  std::vector<std::size_t> widths(columns.size());
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const auto& row = rows[r];
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string_view state = row[i];
      const bool colored = r >= heads && is_state(columns[i]);
      line += colored ? painted(output, state.substr(state.rfind(' ') + 1), row[i]) : row[i];
      if (i + 1 == row.size()) break;
      if (output.terminal)
        line.append(widths[i] - width_of(row[i]) + 2, ' ');
      else
        line += '\t';
    }
    if (output.terminal) line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

void print(const Output& output, const bj::value& answer, const std::vector<Column>& columns,
           std::string_view name_path) {
  const std::string text = render(output, answer, columns, name_path);
  if (text.empty() && output.terminal) std::fputs("nothing here yet\n", stderr);
  std::fputs(text.c_str(), stdout);
}

int report(const Error& error) {
  std::string request;
  std::string text = "Error: " + printable(error.message()) + "\n";
  for (const auto& [key, value] : error.context()) {
    if (key == "request")
      request = value;
    else
      text += "Why:   " + key + " = " + printable(value) + "\n";
  }
  for (const Problem& problem : error.problems())
    text += "Why:   " + printable(problem.pointer + ": " + problem.detail) + "\n";
  if (!error.hint().empty()) text += "Try:   " + error.hint() + "\n";
  if (!request.empty()) text += "Request: " + request + "\n";
  std::fputs(text.c_str(), stderr);
  if (std::getenv("GITHUB_ACTIONS") != nullptr)
    std::fprintf(stderr, "::error::%s\n", error.message().c_str());
  return exit_code(error.code());
}

}  // namespace flock::cli

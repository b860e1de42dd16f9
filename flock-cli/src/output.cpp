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
  try {
    const auto seconds = (system_clock().now() - parse_rfc3339(time)).count() / 1000;
    if (seconds < 0) return "in " + span(-seconds);
    return span(seconds) + " ago";
  } catch (const Error&) {
    return time;  // not a time after all
  }
}

bool is_state(const Column& column) {
  return column.head == "STATE" || column.head == "PHASE" || column.head == "HEALTH";
}

enum class Mood { kGood, kBad, kBusy, kQuiet };
Mood mood_of(std::string_view state) {
  const auto is_one_of = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), state) != names.end();
  };
  if (is_one_of({"ONLINE", "CONFIRMED", "COMPLETED", "FINAL", "EXECUTED", "HEALTHY", "ACTIVE",
                 "ACCEPTED", "OK"}))
    return Mood::kGood;
  if (is_one_of({"FAILED", "ROLLBACK_FAILED", "REVOKED", "UNHEALTHY", "EXITED", "EXPIRED", "FAIL"}))
    return Mood::kBad;
  if (is_one_of({"", "OFFLINE", "SUPERSEDED", "SKIPPED", "WAITING", "IDLE", "NO_CHECK", "UNKNOWN"}))
    return Mood::kQuiet;
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
  if (!output.terminal || output.format == Format::kCsv || value.empty()) return value;
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

using Rows = std::vector<std::vector<std::string>>;

bj::array items_of(const bj::value& answer) {
  std::string_view path = "items";
  const bj::value* list = find(answer, path);
  if (list != nullptr && list->is_array()) return list->get_array();
  bj::array one;
  one.push_back(answer);
  return one;
}

// --json=name,fleet.slug: those paths of every item, each under its own path.
bj::value with_fields(const Output& output, const bj::value& answer) {
  if (output.fields.empty()) return answer;
  const auto reduced = [&](const bj::value& item) {
    bj::object out;
    for (const std::string& field : output.fields) {
      std::string_view path = field;
      const bj::value* value = find(item, path);
      if (value == nullptr)
        out[field] = nullptr;
      else if (path.empty())
        out[field] = *value;
      else
        out[field] = value_at(item, field);
    }
    return out;
  };
  std::string_view items_path = "items";
  const bj::value* list = find(answer, items_path);
  if (list == nullptr || !list->is_array()) return reduced(answer);
  bj::object out = answer.get_object();
  bj::array items;
  for (const bj::value& item : list->get_array()) items.push_back(reduced(item));
  out["items"] = std::move(items);
  return out;
}

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  return text;
}

// The command's columns, or those of --columns: by head, else by a path that some item has.
std::vector<Column> pick_columns(const Output& output, const std::vector<Column>& columns,
                                 const bj::array& items) {
  std::vector<Column> out;
  if (output.columns.empty()) {
    for (const Column& column : columns) {
      if (!column.wide || output.format != Format::kTable) out.push_back(column);
    }
    return out;
  }
  for (const std::string& wanted : output.columns) {
    const auto known = std::find_if(columns.begin(), columns.end(), [&](const Column& column) {
      return upper(wanted) == upper(column.head) || wanted == column.path;
    });
    if (known != columns.end()) {
      out.push_back(*known);
      continue;
    }
    const bool somewhere = std::any_of(items.begin(), items.end(), [&](const bj::value& item) {
      std::string_view path = wanted;
      return find(item, path) != nullptr;
    });
    if (!somewhere && !items.empty()) {
      std::string heads;
      for (const Column& column : columns) heads += (heads.empty() ? "" : ",") + column.head;
      throw Error(Code::kInvalidArgument, "there is no column `" + wanted + "`")
          .hint("--columns " + heads);
    }
    out.push_back({upper(wanted), wanted});
  }
  return out;
}

// RFC 4180. A cell that a spreadsheet would run as a formula is made text with an apostrophe
// (owasp.org/www-community/attacks/CSV_Injection); numbers stay numbers.
std::string csv_cell(const std::string& text) {
  const bool number = !text.empty() &&
                      text.find_first_not_of("+-.0123456789") == std::string::npos &&
                      text.find_last_of("+-") ==
                          (text[0] == '-' || text[0] == '+' ? std::size_t{0} : std::string::npos);
  std::string out = text;
  if (!text.empty() && std::string_view("=+-@").find(text[0]) != std::string_view::npos && !number)
    out.insert(0, "'");
  if (out.find_first_of(",\"\r\n") == std::string::npos) return out;
  std::string quoted = "\"";
  for (const char c : out) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

std::string csv(const Rows& rows) {
  std::string out;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) out += (i ? "," : "") + csv_cell(row[i]);
    out += "\r\n";
  }
  return out;
}

// Takes from the widest column until a line fits.
void fit(std::vector<std::size_t>& widths, std::size_t limit) {
  constexpr std::size_t kGap = 2, kLeast = 8;
  const auto total = [&] {
    std::size_t sum = 0;
    for (const std::size_t width : widths) sum += width + kGap;
    return sum == 0 ? 0 : sum - kGap;
  };
  while (limit != 0 && total() > limit) {
    const auto widest = std::max_element(widths.begin(), widths.end());
    if (*widest <= kLeast) return;
    --*widest;
  }
}

std::string table(const Output& output, const std::vector<Column>& columns, const Rows& rows,
                  std::size_t heads) {
  std::vector<std::size_t> widths(columns.size());
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  const bool cuts = output.terminal && output.format == Format::kTable;
  if (cuts) fit(widths, output.width);
  std::string out;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::string line;
    for (std::size_t i = 0; i < rows[r].size(); ++i) {
      const std::string text = cuts ? cut(rows[r][i], widths[i]) : rows[r][i];
      const std::string& whole = rows[r][i];
      const bool colored = r >= heads && is_state(columns[i]);
      line += colored ? painted(output, whole.substr(whole.rfind(' ') + 1), text) : text;
      if (i + 1 == rows[r].size()) break;
      if (output.terminal)
        line.append(widths[i] - width_of(text) + 2, ' ');
      else
        line += '\t';
    }
    if (output.terminal) line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
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

std::string when_text(const Output& output, const std::string& time) {
  return output.terminal ? ago(time) : time;
}

std::string value_at(const bj::value& object, std::string_view path) {
  const bj::value* value = find(object, path);
  if (value == nullptr || value->is_null()) return "";
  const auto is_plain = [](const bj::value& item) { return !item.is_structured(); };
  if (value->is_array() && (!path.empty() || std::ranges::all_of(value->get_array(), is_plain))) {
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

std::string cut(const std::string& text, std::size_t width) {
  if (width_of(text) <= width) return text;
  std::size_t end = 0, seen = 0;
  while (end < text.size()) {
    if ((static_cast<unsigned char>(text[end]) & 0xc0) != 0x80 && ++seen == width) break;
    ++end;
  }
  return text.substr(0, end) + "…";
}

std::string painted(const Output& output, std::string_view state, const std::string& text) {
  const Mood mood = mood_of(state);
  if (!output.color || mood == Mood::kQuiet) return text;
  const char* color = mood == Mood::kGood ? "32" : mood == Mood::kBad ? "31" : "33";
  return std::string("\x1b[") + color + "m" + text + "\x1b[0m";
}

std::string render(const Output& output, const bj::value& answer,
                   const std::vector<Column>& columns, std::string_view name_path) {
  if (output.format == Format::kJson) return json_text(with_fields(output, answer)) + "\n";
  if (output.format == Format::kYaml) return yaml_text(with_fields(output, answer));
  const bj::array items = items_of(answer);
  if (output.format == Format::kName) {
    std::string out;
    for (const bj::value& item : items) out += printable(value_at(item, name_path)) + "\n";
    return out;
  }
  const std::vector<Column> shown = pick_columns(output, columns, items);
  Rows rows;
  if (output.headers && (!items.empty() || output.format == Format::kCsv)) {
    auto& head = rows.emplace_back();
    for (const Column& column : shown) head.push_back(column.head);
  }
  const std::size_t heads = rows.size();
  for (const bj::value& item : items) {
    auto& row = rows.emplace_back();
    for (const Column& column : shown)
      row.push_back(cell(output, column, printable(value_at(item, column.path))));
  }
  return output.format == Format::kCsv ? csv(rows) : table(output, shown, rows, heads);
}

void print(const Output& output, const bj::value& answer, const std::vector<Column>& columns,
           std::string_view name_path) {
  const std::string text = render(output, answer, columns, name_path);
  if (text.empty() && output.terminal && output.is_table())
    std::fputs("nothing here yet\n", stderr);
  std::fputs(text.c_str(), stdout);
}

namespace {

// A workflow command's data (GitHub's toolkit, command.ts): % begins an escape.
std::string annotation(const std::string& message) {
  std::string out;
  for (const char c : printable(message)) out += c == '%' ? "%25" : std::string(1, c);
  return out;
}

}  // namespace

int report(const Error& error) {
  std::string request, docs;
  std::string text = "Error: " + printable(error.message()) + "\n";
  for (const auto& [key, value] : error.context()) {
    if (key == "request")
      request = printable(value);
    else if (key == "docs")
      docs = printable(value);
    else
      text += "Why:   " + key + " = " + printable(value) + "\n";
  }
  for (const Problem& problem : error.problems())
    text += "Why:   " + printable(problem.pointer + ": " + problem.detail) + "\n";
  if (!error.hint().empty()) text += "Try:   " + printable(error.hint()) + "\n";
  if (!docs.empty()) text += "Docs:  " + docs + "\n";
  if (!request.empty()) text += "Request: " + request + "\n";
  std::fputs(text.c_str(), stderr);
  if (const char* actions = std::getenv("GITHUB_ACTIONS");
      actions != nullptr && std::string_view(actions) == "true")
    std::fprintf(stderr, "::error::%s\n", annotation(error.message()).c_str());
  return exit_code(error.code());
}

}  // namespace flock::cli

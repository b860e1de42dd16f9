// SPDX-License-Identifier: Apache-2.0
#include "output.h"

#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>

#include "base/time.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

const bj::value* find(const bj::value& object, std::string_view path) {
  const bj::value* at = &object;
  while (at != nullptr && !path.empty()) {
    const std::string_view key = path.substr(0, path.find('.'));
    path.remove_prefix(std::min(path.size(), key.size() + 1));
    at = at->is_object() ? at->get_object().if_contains(key) : nullptr;
  }
  return at;
}

bool is_time(std::string_view path) { return path.ends_with("_at") || path == "at"; }

std::string ago(const std::string& time) {
  const auto seconds = (system_clock().now() - parse_rfc3339(time)).count() / 1000;
  if (seconds < 0) return time;
  if (seconds < 60) return std::to_string(seconds) + "s ago";
  if (seconds < 3600) return std::to_string(seconds / 60) + "m ago";
  if (seconds < 86400) return std::to_string(seconds / 3600) + "h ago";
  return std::to_string(seconds / 86400) + "d ago";
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
  if (value->is_string()) return std::string(value->get_string());
  return bj::serialize(*value);
}

void print(const Output& output, const bj::value& answer, const std::vector<Column>& columns,
           std::string_view name_path) {
  if (output.format == Format::kJson) {
    std::puts(bj::serialize(answer).c_str());
    return;
  }
  bj::array one;
  const bj::value* list = find(answer, "items");
  if (list == nullptr || !list->is_array()) one.push_back(answer);
  const bj::array& items = list && list->is_array() ? list->get_array() : one;
  if (output.format == Format::kName) {
    for (const bj::value& item : items) std::puts(value_at(item, name_path).c_str());
    return;
  }
  const bool terminal = ::isatty(STDOUT_FILENO);
  if (items.empty() && terminal) std::fputs("nothing here yet\n", stderr);
  std::vector<std::vector<std::string>> rows;
  if (output.headers && !items.empty()) {
    auto& head = rows.emplace_back();
    for (const Column& column : columns) head.push_back(column.head);
  }
  for (const bj::value& item : items) {
    auto& row = rows.emplace_back();
    for (const Column& column : columns) {
      const std::string value = value_at(item, column.path);
      row.push_back(terminal && is_time(column.path) && !value.empty() ? ago(value) : value);
    }
  }
  std::vector<std::size_t> widths(columns.size());
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 == row.size()) break;
      if (terminal)
        line.append(widths[i] - row[i].size() + 2, ' ');
      else
        line += '\t';
    }
    std::puts(line.c_str());
  }
}

int report(const Error& error) {
  std::string request;
  std::string text = "Error: " + error.message() + "\n";
  for (const auto& [key, value] : error.context()) {
    if (key == "request")
      request = value;
    else
      text += "Why:   " + key + " = " + value + "\n";
  }
  for (const Problem& problem : error.problems())
    text += "Why:   " + problem.pointer + ": " + problem.detail + "\n";
  if (!error.hint().empty()) text += "Try:   " + error.hint() + "\n";
  if (!request.empty()) text += "Request: " + request + "\n";
  std::fputs(text.c_str(), stderr);
  if (std::getenv("GITHUB_ACTIONS") != nullptr)
    std::fprintf(stderr, "::error::%s\n", error.message().c_str());
  return exit_code(error.code());
}

}  // namespace flock::cli

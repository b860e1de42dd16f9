// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/time.h"

namespace flock::log {
namespace {

std::atomic<Level> g_level = Level::kInfo;
std::atomic<Format> g_format = Format::kJson;
thread_local std::string t_target;

constexpr std::string_view kNames[] = {"debug", "info", "warn", "error"};

void append_value(std::string& line, const Field& field, Format format) {
  if (const auto* text = std::get_if<std::string_view>(&field.value)) {
    const bool bare = format == Format::kPretty && !text->empty() &&
                      std::all_of(text->begin(), text->end(), [](char c) {
                        return c > ' ' && c < 0x7f && c != '"' && c != '=';
                      });
    if (bare) {
      line += *text;
    } else {
      json::append_quoted(line, *text);
    }
  } else if (const auto* number = std::get_if<std::int64_t>(&field.value)) {
    line += std::to_string(*number);
  } else if (const auto* real = std::get_if<double>(&field.value)) {
    char text_form[32];
    std::snprintf(text_form, sizeof text_form, "%.6g", *real);
    line += std::isfinite(*real) ? text_form : "null";  // JSON has no other word for it
  } else {
    line += std::get<bool>(field.value) ? "true" : "false";
  }
}

class Line {
 public:
  Line(Level level, std::string_view message, Format format) : format_(format) {
    const std::string now = to_rfc3339(system_clock().now());
    const std::string_view name = kNames[static_cast<int>(level)];
    if (format_ == Format::kPretty) {
      text_ = now.substr(11, 12) + " ";
      text_ += name;
      text_.append(name.size() < 5 ? 5 - name.size() : 0, ' ');
      text_ += " ";
      if (!t_target.empty()) text_ += "[" + t_target + "] ";
      text_ += message;
      return;
    }
    text_ = "{\"ts\":\"" + now + "\",\"level\":\"";
    text_ += name;
    text_ += "\",\"msg\":";
    json::append_quoted(text_, message);
    if (!t_target.empty()) add({"target", t_target});
  }

  void add(const Field& field) {
    if (format_ == Format::kPretty) {
      text_ += "  ";
      text_ += field.key;
      text_ += "=";
    } else {
      text_ += ",";
      json::append_quoted(text_, field.key);
      text_ += ":";
    }
    append_value(text_, field, format_);
  }

  // One write(2), so that lines of several threads do not mix.
  void emit() {
    if (format_ == Format::kJson) text_ += "}";
    text_ += "\n";
    std::string_view rest = text_;
    while (!rest.empty()) {
      const ssize_t done = ::write(STDERR_FILENO, rest.data(), rest.size());
      if (done <= 0) return;  // nobody reads: logging must never stop the work
      rest.remove_prefix(static_cast<std::size_t>(done));
    }
  }

 private:
  Format format_;
  std::string text_;
};

bool wanted(Level level) { return level >= g_level.load(std::memory_order_relaxed); }

}  // namespace

Level parse_level(std::string_view level) {
  for (int i = 0; i < 4; ++i) {
    if (kNames[i] == level) return static_cast<Level>(i);
  }
  if (level == "off") return Level::kOff;
  throw Error(Code::kInvalidArgument, "unknown log level")
      .with("value", std::string(level))
      .hint("use one of debug, info, warn, error, off");
}

void set_level(Level level) noexcept { g_level = level; }
Level level() noexcept { return g_level; }
void set_format(Format format) noexcept { g_format = format; }
Format default_format() noexcept {
  return ::isatty(STDERR_FILENO) ? Format::kPretty : Format::kJson;
}
void set_thread_target(std::string_view target) { t_target = target; }

void write(Level level, std::string_view message, Fields fields) {
  if (!wanted(level)) return;
  Line line(level, message, g_format);
  for (const Field& field : fields) line.add(field);
  line.emit();
}

void write(Level level, std::string_view message, const Error& error, Fields fields) {
  if (!wanted(level)) return;
  Line line(level, message, g_format);
  line.add({"error.code", to_string(error.code())});
  line.add({"error", error.message()});
  for (const Problem& problem : error.problems()) {
    line.add({"problem", problem.pointer + ": " + problem.detail});
  }
  for (const auto& [key, value] : error.context()) line.add({key, value});
  for (const Field& field : fields) line.add(field);
  line.emit();
}

}  // namespace flock::log

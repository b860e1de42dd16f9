// SPDX-License-Identifier: Apache-2.0
// Structured log: one JSON object a line on stderr (or "pretty" on a terminal).
//   log::info("device registered", {{"device", id.text()}, {"fleet", fleet}});
// The text is constant and lower case; data goes into fields. Never a token, key or payload body.
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <variant>

namespace flock {
class Error;
class Secret;
}  // namespace flock

namespace flock::log {

enum class Level { kDebug, kInfo, kWarn, kError, kOff };
enum class Format { kJson, kPretty };

// `level`: debug, info, warn, error, off. Throws Error{kInvalidArgument}.
Level parse_level(std::string_view level);
void set_level(Level level) noexcept;
Level level() noexcept;
void set_format(Format format) noexcept;
// JSON when stderr is not a terminal.
Format default_format() noexcept;

// The name of the program or target that runs on this thread; put into every line as `target`.
void set_thread_target(std::string_view target);

struct Field {
  std::string_view key;
  std::variant<std::string_view, std::int64_t, double, bool> value;

  Field(std::string_view k, std::string_view v) : key(k), value(v) {}
  Field(std::string_view k, const std::string& v) : key(k), value(std::string_view(v)) {}
  Field(std::string_view k, const char* v) : key(k), value(std::string_view(v)) {}
  Field(std::string_view k, std::same_as<bool> auto v) : key(k), value(v) {}
  Field(std::string_view k, std::floating_point auto v) : key(k), value(static_cast<double>(v)) {}
  template <std::integral T>
    requires(!std::same_as<T, bool>)
  Field(std::string_view k, T v) : key(k), value(static_cast<std::int64_t>(v)) {}
  Field(std::string_view k, const Secret&) : key(k), value(std::string_view("****")) {}
};
using Fields = std::initializer_list<Field>;

void write(Level level, std::string_view message, Fields fields);
// An error with its code, text and context, plus fields.
void write(Level level, std::string_view message, const Error& error, Fields fields);

inline void debug(std::string_view m, Fields f = {}) { write(Level::kDebug, m, f); }
inline void info(std::string_view m, Fields f = {}) { write(Level::kInfo, m, f); }
inline void warn(std::string_view m, Fields f = {}) { write(Level::kWarn, m, f); }
inline void error(std::string_view m, Fields f = {}) { write(Level::kError, m, f); }
inline void debug(std::string_view m, const Error& e, Fields f = {}) {
  write(Level::kDebug, m, e, f);
}
inline void warn(std::string_view m, const Error& e, Fields f = {}) {
  write(Level::kWarn, m, e, f);
}
inline void error(std::string_view m, const Error& e, Fields f = {}) {
  write(Level::kError, m, e, f);
}

}  // namespace flock::log

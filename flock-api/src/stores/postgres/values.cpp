// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <cstdio>

#include "base/bytes.h"
#include "stores/postgres/database.h"

namespace flock::postgres {

Params& Params::text(std::string value) {
  values_.emplace_back(std::move(value));
  return *this;
}
Params& Params::text(const std::optional<std::string>& value) {
  values_.push_back(value);
  return *this;
}
Params& Params::integer(std::int64_t value) { return text(std::to_string(value)); }
Params& Params::real(double value) {
  char out[40];
  std::snprintf(out, sizeof out, "%.17g", value);
  return text(std::string(out));
}
Params& Params::boolean(bool value) { return text(std::string(value ? "t" : "f")); }
Params& Params::time(TimePoint value) { return text(to_rfc3339(value)); }
Params& Params::time(const std::optional<TimePoint>& value) {
  if (value) return time(*value);
  values_.emplace_back();
  return *this;
}
Params& Params::bytes(std::string_view value) { return text("\\x" + to_hex(value)); }

// PostgreSQL's array literal; every element quoted.
Params& Params::texts(const std::vector<std::string>& values) {
  std::string out = "{";
  for (const std::string& value : values) {
    if (out.size() > 1) out += ',';
    out += '"';
    for (const char c : value) {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    out += '"';
  }
  return text(out + "}");
}

const std::optional<std::string>& Row::value(std::string_view column) const {
  for (std::size_t i = 0; i < columns_->size(); ++i) {
    if ((*columns_)[i] == column) return values_[i];
  }
  throw Error(Code::kInternal, "a statement does not give this column")
      .with("column", std::string(column));
}

const std::string& Row::text(std::string_view column) const {
  const auto& found = value(column);
  if (!found) throw Error(Code::kInternal, "a column is NULL").with("column", std::string(column));
  return *found;
}
std::optional<std::string> Row::optional_text(std::string_view column) const {
  return value(column);
}
std::vector<std::string> Row::texts(std::string_view column) const {
  const std::string& list = text(column);
  std::vector<std::string> items;
  for (std::size_t at = 0; at < list.size();) {
    const std::size_t comma = std::min(list.find(',', at), list.size());
    items.push_back(list.substr(at, comma - at));
    at = comma + 1;
  }
  return items;
}
std::optional<std::vector<std::string>> Row::optional_texts(std::string_view column) const {
  if (!value(column)) return std::nullopt;
  return texts(column);
}

std::optional<std::int64_t> Row::optional_integer(std::string_view column) const {
  const auto& found = value(column);
  if (!found) return std::nullopt;
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(found->data(), found->data() + found->size(), number);
  if (error != std::errc() || end != found->data() + found->size()) {
    throw Error(Code::kInternal, "a column is no whole number").with("column", std::string(column));
  }
  return number;
}
std::int64_t Row::integer(std::string_view column) const {
  text(column);  // throws on NULL
  return *optional_integer(column);
}
double Row::real(std::string_view column) const { return std::stod(text(column)); }
bool Row::boolean(std::string_view column) const { return text(column) == "t"; }
TimePoint Row::time(std::string_view column) const { return from_unix_ms(integer(column)); }
std::optional<TimePoint> Row::optional_time(std::string_view column) const {
  const auto number = optional_integer(column);
  if (!number) return std::nullopt;
  return from_unix_ms(*number);
}
std::string Row::bytes(std::string_view column) const {
  const std::string& hex = text(column);
  return from_hex(std::string_view(hex).substr(2)).value_or("");
}

}  // namespace flock::postgres

// SPDX-License-Identifier: Apache-2.0
#include "stores/time_series/sql.h"

#include <algorithm>

#include "base/error.h"

namespace flock::stores::clickhouse {

std::string literal(std::string_view value) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "'";
  for (const char c : value) {
    if (c >= 0x20 && c < 0x7F && c != '\'' && c != '\\') {
      out += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
  }
  return out + "'";
}

bool is_identifier(std::string_view name) {
  const auto letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  };
  return !name.empty() && name.size() <= 64 && letter(name[0]) &&
         std::ranges::all_of(name, [&](char c) { return letter(c) || (c >= '0' && c <= '9'); });
}

Statement& Statement::add(Sql more) {
  text_ += more.text();
  return *this;
}

Statement& Statement::text(std::string_view place, std::string_view value) {
  values_[std::string(place)] = literal(value);
  return *this;
}

Statement& Statement::number(std::string_view place, std::int64_t value) {
  values_[std::string(place)] = std::to_string(value);
  return *this;
}

Statement& Statement::list(std::string_view place, const std::vector<std::string>& values) {
  std::string& out = values_[std::string(place)];
  out.clear();
  for (const std::string& value : values) out += (out.empty() ? "" : ", ") + literal(value);
  return *this;
}

Statement& Statement::numbers(std::string_view place, const std::vector<std::int64_t>& values) {
  std::string& out = values_[std::string(place)];
  out.clear();
  for (const std::int64_t value : values) out += (out.empty() ? "" : ", ") + std::to_string(value);
  return *this;
}

Statement& Statement::array(std::string_view place, const std::vector<std::string>& values) {
  std::string& out = list(place, values).values_.find(place)->second;
  out = values.empty() ? "emptyArrayString()" : "[" + out + "]";
  return *this;
}

Statement& Statement::part(std::string_view place, Sql value) {
  values_[std::string(place)] = value.text();
  return *this;
}

Statement& Statement::name(std::string_view place, std::string_view value) {
  if (!is_identifier(value))
    throw Error(Code::kInvalidArgument, "not a name: letters, digits and _, a letter first")
        .with("name", std::string(value));
  values_[std::string(place)] = value;
  return *this;
}

std::string Statement::str() const {
  std::string out;
  for (std::size_t at = 0;;) {
    const std::size_t open = text_.find('{', at);
    out.append(text_, at, open - at);
    if (open == std::string::npos) return out;
    const std::size_t close = text_.find('}', open);
    FLOCK_ASSERT(close != std::string::npos);
    const auto found = values_.find(std::string_view(text_).substr(open + 1, close - open - 1));
    FLOCK_ASSERT(found != values_.end());
    out += found->second;
    at = close + 1;
  }
}

}  // namespace flock::stores::clickhouse

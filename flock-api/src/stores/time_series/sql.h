// SPDX-License-Identifier: Apache-2.0
// SQL for ClickHouse. Values get into a statement here and nowhere else: the texts are constants of
// the program, which the compiler checks, and each value is written as a literal by one function.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace flock::stores::clickhouse {

// A text that was there when the program was built.
class Sql {
 public:
  consteval Sql(const char* text) : text_(text) {}  // NOLINT: it is one
  std::string_view text() const noexcept { return text_; }

 private:
  std::string_view text_;
};

// 'text' as ClickHouse reads it; any bytes. Only printable ASCII comes out.
std::string literal(std::string_view value);
// What may be the name of a database.
bool is_identifier(std::string_view name);

// A text with places like {org} and what stands there.
class Statement {
 public:
  explicit Statement(Sql text) : text_(text.text()) {}
  Statement& add(Sql more);
  Statement& text(std::string_view place, std::string_view value);
  Statement& number(std::string_view place, std::int64_t value);
  Statement& list(std::string_view place, const std::vector<std::string>& values);
  Statement& numbers(std::string_view place, const std::vector<std::int64_t>& values);
  // ['a', 'b'], of texts also when it is empty.
  Statement& array(std::string_view place, const std::vector<std::string>& values);
  Statement& part(std::string_view place, Sql value);
  // Throws Error{kInvalidArgument} for what is no identifier.
  Statement& name(std::string_view place, std::string_view value);
  // Every place must have its value.
  std::string str() const;

 private:
  std::string text_;
  std::map<std::string, std::string, std::less<>> values_;
};

}  // namespace flock::stores::clickhouse

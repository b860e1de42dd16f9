// SPDX-License-Identifier: Apache-2.0
// JSON at the borders, over Boost.JSON. Only forward declarations here; include <boost/json.hpp> in
// the .cpp that needs it.
#pragma once

#include <boost/json/fwd.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace flock::json {

struct Limits {
  std::size_t bytes = 1 << 20;
  std::size_t depth = 32;
};

// Strict RFC 8259, UTF-8 checked; of equal keys the last wins. Throws Error{kInvalidArgument} that
// names line and column, or Error{kTooLarge} past a limit.
boost::json::value parse(std::string_view text, Limits limits = {});
std::string serialize(const boost::json::value& value);

// Well-formed UTF-8 (Unicode 15, table 3-7): no surrogates, nothing overlong.
bool is_utf8(std::string_view text) noexcept;
// `text` as a JSON string with its quotes; invalid UTF-8 becomes U+FFFD.
void append_quoted(std::string& out, std::string_view text);

// Reads one object of foreign input, collecting every fault instead of stopping at the first. After
// the last field call finish(), which throws Error{kInvalidArgument} with all problems (unknown
// fields included).
//   Reader in(value);
//   auto name = in.string("name", {.max = 63});
//   in.finish();
class Reader {
 public:
  // `pointer` is the place of `value` in its document ("" for the root). Not an object is a problem
  // of its own.
  explicit Reader(const boost::json::value& value, std::string pointer = "");
  // Problems go to the parent's list; the parent's finish() throws.
  Reader(const boost::json::value& value, std::string pointer, Reader& parent);

  struct Text {
    std::size_t min = 1;
    std::size_t max = 255;
  };
  struct Range {
    std::int64_t min = 0;
    std::int64_t max = INT64_MAX;
  };
  std::string string(std::string_view key, Text limits);
  std::string string(std::string_view key) { return string(key, Text()); }
  std::optional<std::string> optional_string(std::string_view key, Text limits);
  std::optional<std::string> optional_string(std::string_view key) {
    return optional_string(key, Text());
  }
  std::int64_t integer(std::string_view key, Range range);
  std::optional<std::int64_t> optional_integer(std::string_view key, Range range);
  std::optional<bool> optional_boolean(std::string_view key);
  std::vector<std::string> optional_strings(std::string_view key, std::size_t max_items,
                                            Text limits);
  // Null when absent; the wrong type is a problem. The value must outlive the reader.
  const boost::json::object* optional_object(std::string_view key);
  const boost::json::array* optional_array(std::string_view key);
  const boost::json::value* optional_value(std::string_view key);

  // A fault that only the caller can see.
  void problem(std::string_view key, std::string code, std::string detail);
  std::string pointer(std::string_view key) const;
  bool ok() const;
  void finish();

 private:
  const boost::json::value* find(std::string_view key);
  std::optional<std::string> text(std::string_view key, Text limits, bool required);

  const boost::json::object* object_ = nullptr;
  std::string pointer_;
  std::vector<std::string> seen_;
  std::vector<Problem> own_;
  std::vector<Problem>* problems_ = &own_;
};

}  // namespace flock::json

// SPDX-License-Identifier: Apache-2.0
// Any bytes as a value, as a cursor and as an answer.
#include "stores/time_series/sql.h"

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/error.h"
#include "stores/time_series/row_binary.h"
#include "stores/time_series/rules.h"

using namespace flock;
using namespace flock::stores;

namespace {

// Reads a literal as ClickHouse does; it must be exactly one.
std::string read_literal(std::string_view text) {
  FLOCK_ASSERT(text.size() >= 2 && text.front() == '\'' && text.back() == '\'');
  text = text.substr(1, text.size() - 2);
  std::string out;
  while (!text.empty()) {
    FLOCK_ASSERT(text[0] >= 0x20 && text[0] < 0x7F && text[0] != '\'');
    const bool escape = text[0] == '\\';
    if (escape) {
      FLOCK_ASSERT(text.size() >= 4 && text[1] == 'x');
      out += from_hex(text.substr(2, 2)).value();
    } else {
      out += text[0];
    }
    text.remove_prefix(escape ? 4 : 1);
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  FLOCK_ASSERT(read_literal(clickhouse::literal(input)) == input);
  clickhouse::Statement sql("{a}|{b}");
  sql.text("a", input).list("b", {input});
  const std::string one = clickhouse::literal(input);
  FLOCK_ASSERT(sql.str() == one + "|" + one);
  try {
    const LogPlace place = parse_cursor(input);
    LogRow row;
    row.origin.device = place.device;
    row.origin.service = place.service;
    row.at_ms = place.at_ms;
    row.epoch = place.epoch;
    row.number = place.number;
    row.gap = place.gap;
    FLOCK_ASSERT(parse_cursor(cursor_of(row)) == place);
  } catch (const Error&) {
  }
  try {
    for (RowReader in(input); !in.done();) {
      in.text();
      in.number<double>();
    }
  } catch (const Error&) {
  }
  return 0;
}

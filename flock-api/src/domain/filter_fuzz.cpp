// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "base/json.h"
#include "domain/filter.h"
#include "domain/order.h"

using namespace flock;

namespace {

const domain::FieldTable kFields = {
    {"id", domain::FieldType::kId, "d.id", {}, true, false},
    {"name", domain::FieldType::kText, "d.name", {}, true, false},
    {"n", domain::FieldType::kInteger, "d.n", {}, true},
    {"r", domain::FieldType::kReal, "d.r", {}, true},
    {"b", domain::FieldType::kBoolean, "d.b"},
    {"t", domain::FieldType::kTime, "d.t", {}, true},
    {"v", domain::FieldType::kVersion, "d.v", {}, true},
    {"os.version", domain::FieldType::kVersion, "d.v"},
    {"e", domain::FieldType::kEnum, "d.e", {"UP", "DOWN"}},
    {"labels", domain::FieldType::kLabels, "d.labels"},
    {"a", domain::FieldType::kAttributes, "d.a"},
};
const TimePoint kNow = from_unix_ms(1'800'000'000'000);

// The canonical text may be longer, but says the same and stays as it is.
void check(const domain::Filter& filter) {
  const std::string text = domain::to_text(filter);
  const domain::Filter again = domain::parse_filter(text, kFields, {.bytes = 1 << 16});
  FLOCK_ASSERT(again == filter);
  FLOCK_ASSERT(domain::to_text(again) == text);

  const domain::Sql sql = domain::compile_sql(filter, kFields, 1, kNow);
  for (std::size_t i = 0; i < sql.values.size(); ++i) {
    FLOCK_ASSERT(sql.text.find("$" + std::to_string(i + 1) + "::") != std::string::npos);
    FLOCK_ASSERT(json::is_utf8(sql.values[i]) && sql.values[i].find('\0') == std::string::npos);
  }
  // Whatever a row holds, a filter and its opposite tell two different things about it.
  const domain::Filter opposite{domain::Filter::Kind::kNot, {filter}, {}};
  const std::optional<domain::FieldValue> rows[] = {std::nullopt, "1.0-rc1", std::int64_t(1), 0.5,
                                                    true,         kNow,      std::monostate()};
  for (const auto& value : rows) {
    const auto lookup = [&](const domain::Field&, std::string_view) { return value; };
    FLOCK_ASSERT(domain::matches(filter, kFields, lookup, kNow) !=
                 domain::matches(opposite, kFields, lookup, kNow));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  try {
    check(domain::parse_filter(input, kFields));
  } catch (const Error& error) {
    FLOCK_ASSERT(error.code() == Code::kInvalidArgument && error.problems().size() == 1);
  }
  try {
    const domain::Order order = domain::parse_order(input, kFields);
    FLOCK_ASSERT(domain::parse_order(domain::to_text(order), kFields) == order);
  } catch (const Error& error) {
    FLOCK_ASSERT(error.code() == Code::kInvalidArgument && error.problems().size() == 1);
  }
  return 0;
}

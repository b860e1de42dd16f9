// SPDX-License-Identifier: Apache-2.0
// The one filter grammar of the product (docs/filter.md): a subset of AIP-160 for lists, selectors
// of deployments, subscriptions, the CLI and the UI. One syntax tree has two readings, SQL and
// memory, which agree on every row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/time.h"

namespace flock::domain {

enum class FieldType {
  kText,
  kInteger,
  kReal,
  kBoolean,
  kTime,        // a timestamptz; compared in whole milliseconds, rounded down
  kVersion,     // text that is compared by version_key()
  kEnum,        // text that is one of `values`
  kId,          // a uuid
  kLabels,      // jsonb object of texts: labels.site
  kAttributes,  // jsonb object of texts, numbers and booleans: attributes.rack
};

// What callers may filter and sort by, and the SQL expression behind it. The expression is ours and
// trusted; nothing a caller wrote ever becomes SQL text.
struct Field {
  std::string name;  // may have dots: "os.version"
  FieldType type = FieldType::kText;
  std::string sql;
  std::vector<std::string> values = {};  // kEnum only
  bool sortable = false;
  bool nullable = true;  // whether the expression that sorts can be NULL
  // Sorts by another expression than it filters by: coalesce(d.last_seen_at, 'epoch') is never
  // NULL, so that every page is one range of an index (order.h). A version's is its whole key.
  std::string sort_sql = {};
  // Changes by itself from one moment to the next: whom it selects is decided once (selector.h).
  bool momentary = false;
};
using FieldTable = std::vector<Field>;

// Null when the table has no such field.
const Field* find_field(const FieldTable& fields, std::string_view name);
// "; did you mean a, b?", or all names when none is near.
std::string suggest_fields(const FieldTable& fields, std::string_view name);
// "text", "a time", ...: for messages.
std::string_view describe(FieldType type);

enum class Operator {
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kContains,
  kPresent
};

// A time relative to the moment the filter is evaluated: -2h.
struct RelativeTime {
  Duration offset{0};
  bool operator==(const RelativeTime&) const = default;
};
// Versions, enums and ids are texts. Monostate where the operator needs none (kPresent).
using Literal =
    std::variant<std::monostate, std::string, std::int64_t, double, bool, TimePoint, RelativeTime>;

struct Term {
  std::string field;
  std::string key;  // of a label or attribute
  Operator op = Operator::kEqual;
  Literal value;
  bool operator==(const Term&) const = default;
};

struct Filter {
  enum class Kind { kAnd, kOr, kNot, kTerm };
  Kind kind = Kind::kAnd;  // without parts: everything matches
  std::vector<Filter> parts = {};
  Term term = {};
  bool operator==(const Filter&) const = default;
};

struct FilterLimits {
  std::size_t bytes = 4096;
  std::size_t depth = 20;  // of parentheses
  std::size_t terms = 64;
};

// Blank text matches everything. Throws Error{kInvalidArgument} with one problem at "?filter":
// `syntax`, `unknown_field`, `wrong_type` or `limit`; its detail starts with the column, counted in
// characters from 1.
Filter parse_filter(std::string_view text, const FieldTable& fields, FilterLimits limits = {});

// The canonical text: filters that say the same in the same order have the same text, and parsing
// it again gives the same tree.
std::string to_text(const Filter& filter);
std::string to_text(const Literal& literal);

// What a row holds. Monostate: it is there, but nothing a filter can compare (an array).
using FieldValue = std::variant<std::monostate, std::string, std::int64_t, double, bool, TimePoint>;
// The value of a field (and key) in the row at hand; nullopt when it has none.
using FieldLookup = std::function<std::optional<FieldValue>(const Field&, std::string_view key)>;

// A field that is absent equals nothing and is neither less nor greater: `=` and `<` are false, and
// `!=` and NOT are true. The filter must come from parse_filter with the same table.
bool matches(const Filter& filter, const FieldTable& fields, const FieldLookup& lookup,
             TimePoint now);

// A condition, and the values of its placeholders as texts; the SQL casts them.
struct Sql {
  std::string text;
  std::vector<std::string> values;
};
// For a WHERE clause that is a conjunction (a NULL counts as false). Equality of labels and
// attributes is `column @> $n::jsonb`, which a GIN index serves.
Sql compile_sql(const Filter& filter, const FieldTable& fields, int first_parameter, TimePoint now);

// A text whose byte order is the order of versions: 12.4 = v12.4.0 < 12.10, 2.0-rc.2 < 2.0-rc.10 <
// 2.0 < 2.0p1 < 2.0.1; what follows a `+` is not compared. Nullopt when it does not start with a
// digit (or v and a digit).
std::optional<std::string> version_key(std::string_view version);
// The same in SQL; NULL for nullopt. The property test holds the two together.
std::string version_key_sql(std::string_view expression);

}  // namespace flock::domain

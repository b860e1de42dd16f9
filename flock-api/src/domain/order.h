// SPDX-License-Identifier: Apache-2.0
// Sorted pages of a list: `order_by=last_seen desc,name`, and cursors that name the last row of a
// page (keyset pagination), so that a deep page costs what the first one costs.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "domain/filter.h"

namespace flock::domain {

struct SortKey {
  std::string field;
  bool descending = false;
  bool operator==(const SortKey&) const = default;
};
// Ends with the field "id", so that no two rows are equal; it runs in the direction of the key
// before it, which lets one index (org_id, column, id) serve both directions.
using Order = std::vector<SortKey>;

// The table must have the field "id", sortable and never NULL. Blank text: by id. Throws
// Error{kInvalidArgument} with one problem at "?order_by".
Order parse_order(std::string_view text, const FieldTable& fields);
std::string to_text(const Order& order);

// The list behind ORDER BY. Texts sort by bytes (COLLATE "C"; their index must say so), versions by
// version_key_sql. NULL is greater than everything, as PostgreSQL has it by default.
std::string order_sql(const Order& order, const FieldTable& fields);

// Select these beside the row; as they come back they are the keys of its cursor.
std::vector<std::string> key_columns(const Order& order, const FieldTable& fields);
using CursorKeys = std::vector<std::optional<std::string>>;

// The rows behind the one with these keys. One row comparison when every key has the same direction
// and none can be NULL; otherwise the expansion by keys, under a bound on the first key where there
// is one.
Sql after_sql(const Order& order, const FieldTable& fields, const CursorKeys& keys,
              int first_parameter);

// Opaque to callers. `query` is what else the list depends on: to_text(filter), the path's ids.
std::string encode_cursor(const Order& order, std::string_view query, const CursorKeys& keys);
// Throws Error{kInvalidArgument} with one problem at "?page_token": `invalid` for what we did not
// make, `other_query` when it belongs to another filter or order. The keys have the right number
// and form: PostgreSQL takes each.
CursorKeys decode_cursor(std::string_view token, const Order& order, const FieldTable& fields,
                         std::string_view query);

}  // namespace flock::domain

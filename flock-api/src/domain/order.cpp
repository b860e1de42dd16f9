// SPDX-License-Identifier: Apache-2.0
#include "domain/order.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>

#include "base/bytes.h"
#include "base/error.h"
#include "base/id.h"
#include "base/json.h"
#include "crypto/keys.h"

namespace flock::domain {
namespace {

namespace bj = boost::json;
constexpr std::size_t kMaxText = 512, kMaxKeys = 5, kMaxToken = 16'384;
constexpr std::string_view kSpace = " \t\r\n";

[[noreturn]] void bad_order(std::string code, std::string detail) {
  throw Error(Code::kInvalidArgument, "order_by is not valid: " + detail)
      .hint("write it like last_seen desc,name")
      .problems({{"?order_by", std::move(code), detail}});
}

[[noreturn]] void bad_token(std::string code, std::string detail) {
  throw Error(Code::kInvalidArgument, "page_token is not valid: " + detail)
      .hint("start again without page_token")
      .problems({{"?page_token", std::move(code), detail}});
}

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> out;
  for (;;) {
    const std::size_t start = text.find_first_not_of(kSpace);
    if (start == std::string_view::npos) return out;
    text.remove_prefix(start);
    out.push_back(text.substr(0, text.find_first_of(kSpace)));
    text.remove_prefix(out.back().size());
  }
}

std::string sortable_names(const FieldTable& fields) {
  std::string out;
  for (const Field& field : fields) {
    if (field.sortable) out += (out.empty() ? "" : ", ") + field.name;
  }
  return out;
}

SortKey parse_key(std::string_view part, const FieldTable& fields, std::size_t column) {
  const std::string place = "column " + std::to_string(column) + ": ";
  const auto words = words_of(part);
  if (words.empty()) bad_order("syntax", place + "expected a field");
  const std::string name(words[0].substr(0, 64));
  const Field* field = find_field(fields, words[0]);
  if (field == nullptr || !field->sortable)
    bad_order("unknown_field", place +
                                   (field == nullptr ? "there is no field " + name
                                                     : "lists cannot be sorted by " + name) +
                                   "; they can by " + sortable_names(fields));
  if (words.size() > 2 || (words.size() == 2 && words[1] != "asc" && words[1] != "desc"))
    bad_order("syntax", place + "expected asc, desc or a comma after " + name);
  return {field->name, words.size() == 2 && words[1] == "desc"};
}

// One key of the order, ready to be written.
struct Column {
  std::string sql, cast;
  FieldType type;
  bool descending, nullable;
};

std::string cast_of(FieldType type) {
  switch (type) {
    case FieldType::kInteger:
      return "::bigint";
    case FieldType::kReal:
      return "::double precision";
    case FieldType::kBoolean:
      return "::boolean";
    case FieldType::kTime:
      return "::timestamptz";
    case FieldType::kId:
      return "::uuid";
    default:
      return "::text";
  }
}

std::vector<Column> columns_of(const Order& order, const FieldTable& fields) {
  std::vector<Column> out;
  for (const SortKey& key : order) {
    const Field* field = find_field(fields, key.field);
    FLOCK_ASSERT(field != nullptr);
    std::string sql = "(" + (field->sort_sql.empty() ? field->sql : field->sort_sql) + ")";
    // A version that is none has no key.
    const bool version = field->type == FieldType::kVersion && field->sort_sql.empty();
    if (version) sql = version_key_sql(sql);
    const std::string cast = cast_of(field->type);
    if (cast == "::text") sql += " COLLATE \"C\"";
    out.push_back({std::move(sql), cast, field->type, key.descending, field->nullable || version});
  }
  return out;
}

std::string digest(const Order& order, std::string_view query) {
  return to_hex(crypto::sha256(to_text(order) + '\n' + std::string(query))).substr(0, 32);
}

template <typename Number>
bool is_number(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

// "2026-11-23T10:00:00.250000Z", as key_columns writes it.
bool is_time(std::string_view text) {
  constexpr std::string_view form = "dddd-dd-ddTdd:dd:dd.ddddddZ";
  if (text.size() != form.size() || text.starts_with("0000") || text.substr(17, 2) == "60")
    return false;
  for (std::size_t i = 0; i < form.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    if (form[i] == 'd' ? !digit : text[i] != form[i]) return false;
  }
  try {
    parse_rfc3339(text);
    return true;
  } catch (const Error&) {
    return false;
  }
}

bool has_form(std::string_view text, FieldType type) {
  switch (type) {
    case FieldType::kInteger:
      return is_number<std::int64_t>(text);
    case FieldType::kReal:
      return text == "NaN" || text == "Infinity" || text == "-Infinity" ||
             (is_number<double>(text) &&
              text.find_first_not_of("0123456789+-.e") == std::string_view::npos);
    case FieldType::kBoolean:
      return text == "true" || text == "false";
    case FieldType::kTime:
      return is_time(text);
    case FieldType::kId:
      return is_uuid(text);
    default:
      return text.find('\0') == std::string_view::npos;
  }
}

class After {
 public:
  After(std::vector<Column> columns, const CursorKeys& keys, int first_parameter)
      : columns_(std::move(columns)), keys_(keys), first_(first_parameter) {
    FLOCK_ASSERT(keys_.size() == columns_.size());
    names_.resize(keys_.size());
  }

  Sql write() {
    const bool one_direction =
        std::all_of(columns_.begin(), columns_.end(), [&](const Column& column) {
          return !column.nullable && column.descending == columns_[0].descending;
        });
    std::string text = one_direction ? row_comparison() : bound() + expansion();
    return {std::move(text), std::move(values_)};
  }

 private:
  std::string row_comparison() {
    std::string left, right;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      left += (i == 0 ? "" : ", ") + columns_[i].sql;
      right += (i == 0 ? "" : ", ") + value(i);
    }
    return "(" + left + ") " + (columns_[0].descending ? "<" : ">") + " (" + right + ")";
  }

  // True of every row behind the cursor, and a range of an index. Ascending past a value, NULLs are
  // still to come, which is no range: such fields want a sort_sql.
  std::string bound() {
    const Column& first = columns_[0];
    if (!keys_[0]) return first.descending ? "" : first.sql + " IS NULL AND ";
    if (first.descending) return first.sql + " <= " + value(0) + " AND ";
    return first.nullable ? "" : first.sql + " >= " + value(0) + " AND ";
  }

  // a after x, or a = x and b after y, ...
  std::string expansion() {
    std::string out, same;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      const std::string later = after(i);
      if (!later.empty()) out += (out.empty() ? "" : " OR ") + ("(" + same + later + ")");
      same += columns_[i].sql + (keys_[i] ? " = " + value(i) : " IS NULL") + " AND ";
    }
    return "(" + (out.empty() ? "FALSE" : out) + ")";
  }

  // "" when nothing can follow: NULL is the greatest.
  std::string after(std::size_t i) {
    const Column& column = columns_[i];
    if (!keys_[i]) return column.descending ? column.sql + " IS NOT NULL" : "";
    if (column.descending) return column.sql + " < " + value(i);
    const std::string greater = column.sql + " > " + value(i);
    return column.nullable ? "(" + greater + " OR " + column.sql + " IS NULL)" : greater;
  }

  // The placeholder of a key, the same wherever it is needed.
  std::string value(std::size_t i) {
    if (names_[i].empty()) {
      values_.push_back(*keys_[i]);
      names_[i] =
          "$" + std::to_string(first_ + static_cast<int>(values_.size()) - 1) + columns_[i].cast;
    }
    return names_[i];
  }

  std::vector<Column> columns_;
  const CursorKeys& keys_;
  int first_;
  std::vector<std::string> names_, values_;
};

}  // namespace

Order parse_order(std::string_view text, const FieldTable& fields) {
  if (text.size() > kMaxText)
    bad_order("limit", "expected at most " + std::to_string(kMaxText) + " bytes");
  Order order;
  const bool blank = text.find_first_not_of(kSpace) == std::string_view::npos;
  for (std::size_t at = 0; !blank && at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const std::size_t start = std::min(text.find_first_not_of(kSpace, at), end);
    const SortKey key = parse_key(text.substr(start, end - start), fields, start + 1);
    const auto same = [&](const SortKey& other) { return other.field == key.field; };
    if (std::any_of(order.begin(), order.end(), same))
      bad_order("duplicate", "column " + std::to_string(start + 1) + ": " + key.field + " again");
    order.push_back(key);
    at = end + 1;
  }
  if (order.size() >= kMaxKeys)
    bad_order("limit", "expected at most " + std::to_string(kMaxKeys - 1) + " fields");
  const auto id = std::find_if(order.begin(), order.end(),
                               [](const SortKey& key) { return key.field == "id"; });
  if (id != order.end()) {
    order.erase(id + 1, order.end());  // nothing is left to sort
  } else {
    const Field* field = find_field(fields, "id");
    FLOCK_ASSERT(field != nullptr && field->sortable && !field->nullable);
    order.push_back({"id", !order.empty() && order.back().descending});
  }
  return order;
}

std::string to_text(const Order& order) {
  std::string out;
  for (const SortKey& key : order)
    out += (out.empty() ? "" : ",") + key.field + (key.descending ? " desc" : "");
  return out;
}

std::string order_sql(const Order& order, const FieldTable& fields) {
  std::string out;
  for (const Column& column : columns_of(order, fields))
    out += (out.empty() ? "" : ", ") + column.sql + (column.descending ? " DESC" : "");
  return out;
}

std::vector<std::string> key_columns(const Order& order, const FieldTable& fields) {
  std::vector<std::string> out;
  for (const Column& column : columns_of(order, fields)) {
    out.push_back(column.type == FieldType::kTime
                      ? "to_char(" + column.sql +
                            " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
                      : "(" + column.sql + ")::text");
  }
  return out;
}

Sql after_sql(const Order& order, const FieldTable& fields, const CursorKeys& keys,
              int first_parameter) {
  return After(columns_of(order, fields), keys, first_parameter).write();
}

std::string encode_cursor(const Order& order, std::string_view query, const CursorKeys& keys) {
  FLOCK_ASSERT(keys.size() == order.size());
  bj::array values;
  for (const auto& key : keys) values.push_back(key ? bj::value(*key) : bj::value(nullptr));
  return to_base64url(json::serialize(bj::object{{"q", digest(order, query)}, {"k", values}}));
}

CursorKeys decode_cursor(std::string_view token, const Order& order, const FieldTable& fields,
                         std::string_view query) {
  const auto text = token.size() <= kMaxToken ? from_base64url(token) : std::nullopt;
  if (!text) bad_token("invalid", "it is not one of ours");
  bj::value document;
  try {
    document = json::parse(*text, {.bytes = kMaxToken, .depth = 4});
  } catch (const Error&) {
    bad_token("invalid", "it is not one of ours");
  }
  const bj::object* object = document.if_object();
  const bj::value* hash = object ? object->if_contains("q") : nullptr;
  const bj::value* list = object ? object->if_contains("k") : nullptr;
  if (!hash || !hash->is_string() || !list || !list->is_array())
    bad_token("invalid", "it is not one of ours");
  if (std::string_view(hash->get_string()) != digest(order, query))
    bad_token("other_query", "it belongs to a list with another filter or order_by");
  const std::vector<Column> columns = columns_of(order, fields);
  if (list->get_array().size() != columns.size()) bad_token("invalid", "it is not one of ours");
  CursorKeys keys;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const bj::value& key = list->get_array()[i];
    const bool null = key.is_null() && columns[i].nullable;
    if (!null && !(key.is_string() && has_form(key.get_string(), columns[i].type)))
      bad_token("invalid", "it is not one of ours");
    keys.push_back(null ? std::nullopt : std::optional(std::string(key.get_string())));
  }
  return keys;
}

}  // namespace flock::domain

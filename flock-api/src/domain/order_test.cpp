// SPDX-License-Identifier: Apache-2.0
#include "domain/order.h"

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"

namespace flock::domain {
namespace {

const FieldTable& fields() {
  static const FieldTable table = {
      {"id", FieldType::kId, "d.id", {}, true, false},
      {"name", FieldType::kText, "d.name", {}, true, false},
      {"cores", FieldType::kInteger, "d.cores", {}, true, false},
      {"last_seen", FieldType::kTime, "d.seen", {}, true},
      {"labels", FieldType::kLabels, "d.labels"},
  };
  return table;
}

constexpr const char* kId = "0190a000-0000-7000-8000-00000000000f";

std::string fault(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    EXPECT_EQ(error.problems().size(), 1u);
    return error.problems().at(0).pointer + " " + error.problems().at(0).code + ": " +
           error.problems().at(0).detail;
  }
  return "no fault";
}

TEST(Order, EndsWithTheId) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "id"},
      {" name ", "name,id"},
      {"last_seen desc, name", "last_seen desc,name,id"},
      {"name asc,cores  desc", "name,cores desc,id desc"},
      {"id desc, name", "id desc"},
  };
  for (const auto& [text, wanted] : cases)
    EXPECT_EQ(to_text(parse_order(text, fields())), wanted) << text;
  EXPECT_EQ(order_sql(parse_order("name desc", fields()), fields()),
            "(d.name) COLLATE \"C\" DESC, (d.id) DESC");
}

TEST(Order, NamesTheColumnOfAFault) {
  const std::pair<const char*, const char*> cases[] = {
      {"name,", "?order_by syntax: column 6: expected a field"},
      {",name", "?order_by syntax: column 1: expected a field"},
      {"name down", "?order_by syntax: column 1: expected asc, desc or a comma after name"},
      {"name,nam",
       "?order_by unknown_field: column 6: there is no field nam; they can by id, "
       "name, cores, last_seen"},
      {"labels",
       "?order_by unknown_field: column 1: lists cannot be sorted by labels; they can by "
       "id, name, cores, last_seen"},
      {"name,name desc", "?order_by duplicate: column 6: name again"},
  };
  for (const auto& [text, wanted] : cases)
    EXPECT_EQ(fault([&] { parse_order(text, fields()); }), wanted) << text;
}

TEST(Keyset, ComparesRowsWhereItCan) {
  const auto after = [](const char* order, const CursorKeys& keys) {
    return after_sql(parse_order(order, fields()), fields(), keys, 2).text;
  };
  EXPECT_EQ(after("", {kId}), "((d.id)) > ($2::uuid)");
  EXPECT_EQ(after("name desc", {"a", kId}),
            "((d.name) COLLATE \"C\", (d.id)) < ($2::text, $3::uuid)");
  EXPECT_EQ(after("name,cores desc", {"a", "4", kId}),
            "(d.name) COLLATE \"C\" >= $2::text AND (((d.name) COLLATE \"C\" > $2::text) OR "
            "((d.name) COLLATE \"C\" = $2::text AND (d.cores) < $3::bigint) OR "
            "((d.name) COLLATE \"C\" = $2::text AND (d.cores) = $3::bigint AND "
            "(d.id) < $4::uuid))");
  // NULL is the greatest: the first of a falling order, the last of a rising one.
  EXPECT_EQ(after("last_seen desc", {std::nullopt, kId}),
            "(((d.seen) IS NOT NULL) OR ((d.seen) IS NULL AND (d.id) < $2::uuid))");
  EXPECT_EQ(after("last_seen", {std::nullopt, kId}),
            "(d.seen) IS NULL AND (((d.seen) IS NULL AND (d.id) > $2::uuid))");
}

TEST(Cursor, IsBoundToItsList) {
  const Order order = parse_order("last_seen desc", fields());
  const CursorKeys keys = {"2026-11-23T10:00:00.250001Z", kId};
  const std::string token = encode_cursor(order, "name = \"a\"", keys);
  EXPECT_EQ(decode_cursor(token, order, fields(), "name = \"a\""), keys);
  const CursorKeys never = {std::nullopt, kId};
  EXPECT_EQ(decode_cursor(encode_cursor(order, "", never), order, fields(), ""), never);

  const char* other =
      "?page_token other_query: it belongs to a list with another filter or order_by";
  EXPECT_EQ(fault([&] { decode_cursor(token, order, fields(), ""); }), other);
  EXPECT_EQ(
      fault([&] { decode_cursor(token, parse_order("", fields()), fields(), "name = \"a\""); }),
      other);
}

// Whoever makes a token up learns nothing but that, whatever PostgreSQL would say to its keys.
TEST(Cursor, TakesNoForgedKeys) {
  const Order order = parse_order("last_seen, cores", fields());
  const CursorKeys forged[] = {
      {"yesterday", "1", kId},
      {"2026-13-23T10:00:00.250001Z", "1", kId},
      {"2026-11-23T10:00:60.250001Z", "1", kId},
      {"0000-11-23T10:00:00.250001Z", "1", kId},
      {std::nullopt, std::nullopt, kId},
      {std::nullopt, "1.5", kId},
      {std::nullopt, "9223372036854775808", kId},
      {std::nullopt, "1", "x"},
      {std::nullopt, "1", std::nullopt},
  };
  const char* invalid = "?page_token invalid: it is not one of ours";
  for (const CursorKeys& keys : forged) {
    const std::string token = encode_cursor(order, "", keys);
    EXPECT_EQ(fault([&] { decode_cursor(token, order, fields(), ""); }), invalid)
        << from_base64url(token).value();
  }
  for (const char* token : {"*", "", "bm8", "e30", "eyJxIjoxLCJrIjpbXX0"})
    EXPECT_EQ(fault([&] { decode_cursor(token, order, fields(), ""); }), invalid) << token;
}

}  // namespace
}  // namespace flock::domain

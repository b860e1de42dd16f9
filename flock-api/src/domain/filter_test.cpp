// SPDX-License-Identifier: Apache-2.0
#include "domain/filter.h"

#include <gtest/gtest.h>

#include <map>

#include "base/error.h"

namespace flock::domain {
namespace {

const FieldTable& fields() {
  static const FieldTable table = {
      {"id", FieldType::kId, "d.id", {}, true, false},
      {"name", FieldType::kText, "d.name", {}, true, false},
      {"cores", FieldType::kInteger, "d.cores"},
      {"load", FieldType::kReal, "d.load"},
      {"online", FieldType::kBoolean, "d.online"},
      {"last_seen", FieldType::kTime, "d.last_seen_at"},
      {"os.version", FieldType::kVersion, "d.os_version"},
      {"state", FieldType::kEnum, "d.state", {"ACTIVE", "REVOKED"}},
      {"labels", FieldType::kLabels, "d.labels"},
      {"attributes", FieldType::kAttributes, "d.attributes"},
  };
  return table;
}

Filter parse(std::string_view text) { return parse_filter(text, fields()); }
std::string canonical(std::string_view text) { return to_text(parse(text)); }

const TimePoint kNow = parse_rfc3339("2026-11-24T12:00:00Z");

// "code: detail" of what is wrong.
std::string fault(const std::string& text) {
  try {
    parse(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    EXPECT_EQ(error.problems().size(), 1u);
    EXPECT_EQ(error.problems().at(0).pointer, "?filter");
    return error.problems().at(0).code + ": " + error.problems().at(0).detail;
  }
  return "no fault";
}

TEST(FilterText, IsCanonical) {
  const std::pair<const char*, const char*> cases[] = {
      {"", ""},
      {"  \n", ""},
      {"name=a", R"(name = "a")"},
      {"name = 'it\\'s \"x\"'", R"(name = "it's \"x\"")"},
      {"name : web", R"(name:"web")"},
      {"labels.site = oslo", R"(labels.site = "oslo")"},
      {"labels.stage:canary", R"(labels.stage = "canary")"},
      {"labels.site:*", "labels.site:*"},
      {"labels:site", "labels.site:*"},
      {"labels : \"topology/zone\"", R"(labels."topology/zone":*)"},
      {"labels.\"topology/zone\" = a", R"(labels."topology/zone" = "a")"},
      {"labels.'a.b' = c", R"(labels.a.b = "c")"},
      {"labels.AND = x", R"(labels.AND = "x")"},
      {"attributes.rack = 5", "attributes.rack = 5"},
      {"attributes.rack = 5.0", "attributes.rack = 5"},
      {"attributes.rack = '5'", R"(attributes.rack = "5")"},
      {"attributes.rack > 1.5", "attributes.rack > 1.5"},
      {"attributes.poe = true", "attributes.poe = true"},
      {"attributes.row = b12", R"(attributes.row = "b12")"},
      {"os.version >= 12.4", R"(os.version >= "12.4")"},
      {"state:ACTIVE", R"(state = "ACTIVE")"},
      {"last_seen > -2h", "last_seen > -2h"},
      {"last_seen > '-120m'", "last_seen > -2h"},
      {"last_seen < +1d", "last_seen < +1d"},
      {"last_seen < 2026-11-24T13:00:00+01:00", R"(last_seen < "2026-11-24T12:00:00.000Z")"},
      {"id = 0190A000-0000-7000-8000-00000000000F",
       R"(id = "0190a000-0000-7000-8000-00000000000f")"},
      {"-cores = -3", "NOT cores = -3"},
      {"NOT(cores=3)", "NOT cores = 3"},
      {"NOT (NOT cores = 3)", "NOT (NOT cores = 3)"},
      // OR first: AIP-160.
      {"cores=1 AND cores=2 OR cores=3", "cores = 1 AND cores = 2 OR cores = 3"},
      {"cores=1 AND (cores=2 OR cores=3)", "cores = 1 AND cores = 2 OR cores = 3"},
      {"(cores=1 AND cores=2) OR cores=3", "(cores = 1 AND cores = 2) OR cores = 3"},
      {"((cores=1) AND (cores=2 AND cores=3))", "cores = 1 AND cores = 2 AND cores = 3"},
      {"-(cores=1 OR cores=2)", "NOT (cores = 1 OR cores = 2)"},
  };
  for (const auto& [text, wanted] : cases) {
    EXPECT_EQ(canonical(text), wanted) << text;
    EXPECT_EQ(parse(canonical(text)), parse(text)) << text;
  }
}

TEST(FilterParser, NamesTheColumnAndWhatItExpected) {
  const std::pair<const char*, const char*> cases[] = {
      {"name", "syntax: column 5: expected one of = != < <= > >= : after name, found the end"},
      {"name ~ x", "syntax: column 6: expected one of = != < <= > >= : after name, found ~"},
      {"name =", "syntax: column 7: expected a value, found the end"},
      {"name = )", "syntax: column 8: expected a value, found )"},
      {"name = AND",
       "syntax: column 8: expected a value, found AND; write \"AND\" when it is text"},
      {"name = a*",
       "syntax: column 9: expected a space or ), found *; put quotes around a value "
       "that has other characters"},
      {"name = \"abc", "syntax: column 8: expected a closing \""},
      {"name = 'a\\n'", "syntax: column 11: expected \\, \" or ' after \\, found n"},
      {"(name = a", "syntax: column 10: expected AND, OR or ), found the end"},
      {"name = a)", "syntax: column 9: expected AND, OR or the end, found a ) that closes nothing"},
      {"name = a and name = b", "syntax: column 10: expected AND, OR or the end, found and"},
      {"name = a AND", "syntax: column 13: expected a field, found the end"},
      {"name = a AND OR name = b", "syntax: column 14: expected a field, found OR"},
      {"NOT NOT name = a", "syntax: column 5: expected a field, found NOT"},
      {"= a", "syntax: column 1: expected a field, found ="},
      {"labels. = a", "syntax: column 8: expected a name, found  "},
      {"labels.\"\" = a", "syntax: column 8: expected a key, found \"\""},
      {"labels = a",
       "wrong_type: column 1: expected a key, as in labels.site; labels is a map of "
       "labels"},
      {"labels:*",
       "wrong_type: column 1: expected a key, as in labels.site; labels is a map of "
       "labels"},
      // Columns are characters, not bytes.
      {"name = \"gr\xc3\xbcn\" AND nam = x",
       "unknown_field: column 19: there is no field nam; did you mean name?"},
      {"label.site = x",
       "unknown_field: column 1: there is no field label.site; did you mean "
       "labels?"},
      {"zzzzzzzz = x",
       "unknown_field: column 1: there is no field zzzzzzzz; the fields are id, name, cores, load, "
       "online, last_seen, os.version, state, labels, attributes"},
      {"name.first = x",
       "unknown_field: column 1: there is no field name.first; name is text; the "
       "fields are id, name, cores, load, online, last_seen, os.version, state, "
       "labels, attributes"},
      {"cores = many",
       "wrong_type: column 9: cores is a whole number; expected a whole number, found many"},
      {"cores = 9223372036854775808",
       "wrong_type: column 9: cores is a whole number; expected a "
       "whole number, found 9223372036854775808"},
      {"load > inf", "wrong_type: column 8: load is a number; expected a number, found inf"},
      {"online = yes",
       "wrong_type: column 10: online is true or false; expected true or false, "
       "found yes"},
      {"online > true", "wrong_type: column 8: expected = or !=; online is true or false"},
      {"attributes.poe < true",
       "wrong_type: column 16: expected = or !=; attributes.poe is true or false"},
      {"state < ACTIVE", "wrong_type: column 7: expected = or !=; state is one of a few words"},
      {"state = GONE",
       "wrong_type: column 9: state is one of a few words; expected ACTIVE, "
       "REVOKED, found GONE"},
      {"os.version > \"new\"",
       "wrong_type: column 14: os.version is a version; expected one like \"12.4\", found \"new\""},
      {"last_seen > 2h",
       "wrong_type: column 13: last_seen is a time; expected "
       "2026-11-23T10:00:00Z, or relative as -2h (at most 36500d), found 2h"},
      {"id = 7", "wrong_type: column 6: id is an id; expected a UUID, found 7"},
      {"name = \xff", "syntax: column 1: expected UTF-8"},
  };
  for (const auto& [text, wanted] : cases) EXPECT_EQ(fault(text), wanted) << text;
  EXPECT_EQ(fault(std::string("name = a\0", 9)), "syntax: column 9: expected no NUL character");
}

TEST(FilterParser, HasLimits) {
  const auto nested = [](std::size_t depth) {
    return std::string(depth, '(') + "cores = 1" + std::string(depth, ')');
  };
  const auto terms = [](int count) {
    std::string out = "cores=1";
    for (int i = 1; i < count; ++i) out += " OR cores=1";
    return out;
  };
  EXPECT_EQ(fault(nested(20)), "no fault");
  EXPECT_EQ(fault(nested(21)), "limit: column 21: expected at most 20 nested parentheses");
  EXPECT_EQ(fault(terms(64)), "no fault");
  EXPECT_EQ(fault(terms(65)), "limit: column 705: expected at most 64 comparisons");
  EXPECT_EQ(fault("name = " + std::string(4089, 'a')), "no fault");
  EXPECT_EQ(fault("name = " + std::string(4090, 'a')),
            "limit: column 1: expected at most 4096 bytes, found 4097");
  EXPECT_EQ(fault("cores = " + std::string(500, 'a')),
            "wrong_type: column 9: cores is a whole number; expected a whole number, found " +
                std::string(64, 'a') + "...");
}

TEST(FilterMatches, FollowsTheTable) {
  const std::map<std::string, FieldValue> row = {
      {"name", "web-1"},
      {"cores", std::int64_t(4)},
      {"last_seen", kNow - std::chrono::hours(1)},
      {"os.version", "12.10"},
      {"labels.site", "oslo"},
      {"attributes.rack", 5.5},
      {"attributes.tags", std::monostate()},
  };
  const FieldLookup lookup = [&](const Field& field,
                                 std::string_view key) -> std::optional<FieldValue> {
    const auto found = row.find(field.name + (key.empty() ? "" : "." + std::string(key)));
    return found == row.end() ? std::nullopt : std::optional(found->second);
  };
  const std::pair<const char*, bool> cases[] = {
      {"", true},
      {"name:eb-", true},
      {"name:WEB", false},
      {"name < web-2", true},
      {"cores >= 4", true},
      {"last_seen > -2h", true},
      {"last_seen > -30m", false},
      {"os.version >= \"12.4\"", true},
      {"os.version = v12.10.0", true},
      {"labels.site = oslo", true},
      {"labels.site != oslo", false},
      // Absent equals nothing, so it is different from everything.
      {"labels.stage = canary", false},
      {"labels.stage != canary", true},
      {"NOT labels.stage : canary", true},
      {"labels.stage:*", false},
      {"-labels.stage:*", true},
      {"load < 5", false},
      {"NOT load < 5", true},
      {"attributes.rack > 5", true},
      {"attributes.rack = \"5.5\"", false},
      {"attributes.tags:*", true},
      {"attributes.tags = a", false},
      {"attributes.tags != a", true},
      {"cores=1 AND cores=1 OR cores=4", false},
      {"cores=4 AND cores=1 OR cores=4", true},
      {"labels.site = \"oslo\" AND os.version >= \"12.4\" AND NOT labels.stage : canary", true},
  };
  for (const auto& [text, wanted] : cases)
    EXPECT_EQ(matches(parse(text), fields(), lookup, kNow), wanted) << text;
}

TEST(FilterSql, HoldsNothingOfTheCaller) {
  const auto sql =
      compile_sql(parse("labels.\"o'slo\" = \"a\\\"b\" AND NOT name:'; DROP' OR last_seen > -2h"),
                  fields(), 3, kNow);
  EXPECT_EQ(sql.text,
            "(((d.labels) @> $3::jsonb) AND ((strpos((d.name), $4::text) > 0) IS NOT TRUE OR "
            "((d.last_seen_at) >= $5::timestamptz)))");
  EXPECT_EQ(sql.values, (std::vector<std::string>{R"({"o'slo":"a\"b"})", "; DROP",
                                                  "2026-11-24T10:00:00.001Z"}));
  EXPECT_EQ(compile_sql(parse(""), fields(), 1, kNow).text, "TRUE");
  EXPECT_EQ(compile_sql(parse("NOT (cores = 1 OR -cores > 2)"), fields(), 1, kNow).text,
            "(((d.cores) = $1::bigint) IS NOT TRUE AND ((d.cores) > $2::bigint))");
}

TEST(Versions, AreOrdered) {
  const char* rising[] = {"0.9",         "1.0~beta", "1.0",     "1.0.1-rc.1", "1.0.1-rc.2",
                          "1.0.1-rc.10", "1.0.1",    "1.0.1p1", "1.0.1.1",    "1.2",
                          "1.10",        "12",       "12.4",    "20260101.1"};
  for (std::size_t i = 0; i < std::size(rising); ++i) {
    for (std::size_t j = 0; j < std::size(rising); ++j)
      EXPECT_EQ(*version_key(rising[i]) <=> *version_key(rising[j]), i <=> j)
          << rising[i] << " " << rising[j];
  }
  EXPECT_EQ(version_key("v1.0.0+build.7"), version_key("1"));
  EXPECT_EQ(version_key("01.2"), version_key("1.2.0"));
  for (const char* none : {"", "v", "latest", ".1", "-1"}) EXPECT_FALSE(version_key(none)) << none;
}

}  // namespace
}  // namespace flock::domain

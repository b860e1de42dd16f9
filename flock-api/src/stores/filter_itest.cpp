// SPDX-License-Identifier: Apache-2.0
// Filters, orders and cursors against a real PostgreSQL: it and the memory give the same answers.
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <map>
#include <random>
#include <set>

#include "base/files.h"
#include "base/json.h"
#include "domain/filter.h"
#include "domain/order.h"
#include "stores/postgres/database.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::domain {
namespace {

namespace bj = boost::json;
using flock::testing::run_task;
using postgres::Params;
using postgres::Scope;

const TimePoint kNow = parse_rfc3339("2026-11-24T12:00:00Z");

const FieldTable& fields() {
  static const FieldTable table = {
      {"id", FieldType::kId, "r.id", {}, true, false},
      {"name", FieldType::kText, "r.name", {}, true},
      {"cores", FieldType::kInteger, "r.cores", {}, true},
      {"load", FieldType::kReal, "r.load", {}, true},
      {"online", FieldType::kBoolean, "r.online", {}, true},
      {"seen", FieldType::kTime, "r.seen", {}, true},
      {"seen_once", FieldType::kTime, "r.seen", {}, true, false, "coalesce(r.seen, 'epoch')"},
      {"os.version", FieldType::kVersion, "r.version", {}, true},
      {"release",
       FieldType::kVersion,
       "r.version",
       {},
       true,
       false,
       "coalesce(" + version_key_sql("r.version") + ", '')"},
      {"state", FieldType::kEnum, "r.state", {"ACTIVE", "GONE"}, true},
      {"labels", FieldType::kLabels, "r.labels"},
      {"attributes", FieldType::kAttributes, "r.attributes"},
  };
  return table;
}

struct RandomRow {
  std::string id;
  std::optional<std::string> name, cores, load, online, seen, version, state;
  std::optional<bj::object> labels, attributes;
};

// Few values, so that rows and literals meet often.
class Chooser {
 public:
  explicit Chooser(unsigned seed) : random_(seed) {}
  std::size_t below(std::size_t count) { return random_() % count; }
  bool one_in(std::size_t count) { return below(count) == 0; }
  std::string of(std::initializer_list<const char*> words) {
    return words.begin()[below(words.size())];
  }

  std::string text() {
    return of({"", "a", "A", "ab", "b", "\xc3\xa4", "\xc3\xa4 b", "a b", "_", "Z", "a\"'\\", "%",
               "\xf0\x9f\x90\xa6", "\xef\xbf\xbd", "\n"});
  }
  std::string integer() { return of({"-9223372036854775808", "-1", "0", "1", "2", "10"}); }
  std::string real() { return of({"-1e+300", "-0.5", "0", "0.1", "1", "2.5", "1e-300"}); }
  std::string version() {
    return of({"1",          "1.0",         "v1.0.0",      "1.0.0-rc1",
               "1.0.0-rc.2", "1.0.0-rc.10", "1.2",         "1.10",
               "1.0.1",      "1.0p1",       "1.0+build.5", "12.4",
               "1.0~b",      "1.#0",        "01.2",        "123456789012345678901234.5",
               "1.0.",       "1..0",        "1-\n",        "1.0-0.0",
               "1a.0#"});
  }
  std::string key() { return of({"a", "b", "a.b", "x/y", "\""}); }
  bj::value json() {
    switch (below(6)) {
      case 0:
        return bj::value(text());
      case 1:
        return bj::value(static_cast<std::int64_t>(below(3)));
      case 2:
        return bj::value(0.5 * static_cast<double>(below(5)));
      case 3:
        return bj::value(one_in(2));
      case 4:
        return bj::value(nullptr);
      default:
        return one_in(2) ? bj::value(bj::array{"a", 1, true}) : bj::value(bj::object{{"a", "a"}});
    }
  }

 private:
  std::mt19937 random_;
};

RandomRow random_row(Chooser& choose) {
  const auto maybe = [&](std::string value) {
    return choose.one_in(5) ? std::nullopt : std::optional(std::move(value));
  };
  RandomRow row;
  row.id = new_uuid();
  row.name = maybe(choose.text());
  row.cores = maybe(choose.integer());
  row.load = maybe(choose.one_in(8) ? "NaN" : choose.real());
  row.online = maybe(choose.of({"true", "false"}));
  // Microseconds that belong to the same millisecond.
  row.seen = maybe(choose.of({"2026-11-24T10:00:00.000000Z", "2026-11-24T10:00:00.000999Z",
                              "2026-11-24T09:59:59.999999Z", "2026-11-24T10:00:00.001000Z",
                              "2026-11-24T12:00:00.500001Z", "1931-01-01T00:00:00.000001Z"}));
  row.version = maybe(choose.one_in(6) ? choose.of({"", "latest", "v", "-1"}) : choose.version());
  row.state = maybe(choose.of({"ACTIVE", "GONE"}));
  if (!choose.one_in(6)) row.labels.emplace();
  if (!choose.one_in(6)) row.attributes.emplace();
  for (std::size_t i = 0; i < 3; ++i) {
    if (row.labels) (*row.labels)[choose.key()] = choose.text();
    if (row.attributes) (*row.attributes)[choose.key()] = choose.json();
  }
  return row;
}

std::optional<FieldValue> json_value(const bj::value& value) {
  if (value.is_null()) return std::nullopt;
  if (value.is_string()) return FieldValue(std::string(value.get_string()));
  if (value.is_int64()) return FieldValue(value.get_int64());
  if (value.is_double()) return FieldValue(value.get_double());
  if (value.is_bool()) return FieldValue(value.get_bool());
  return FieldValue(std::monostate());
}

std::optional<FieldValue> look_up(const RandomRow& row, const Field& field, std::string_view key) {
  const auto typed = [](const std::optional<std::string>& text,
                        auto read) -> std::optional<FieldValue> {
    return text ? std::optional(FieldValue(read(*text))) : std::nullopt;
  };
  const auto same = [](const std::string& text) { return text; };
  if (field.name == "id") return FieldValue(row.id);
  if (field.name == "name") return typed(row.name, same);
  if (field.type == FieldType::kVersion) return typed(row.version, same);
  if (field.name == "state") return typed(row.state, same);
  if (field.name == "online") return typed(row.online, [](auto& t) { return t == "true"; });
  if (field.name == "load") return typed(row.load, [](auto& t) { return std::stod(t); });
  if (field.name == "cores")
    return typed(row.cores, [](auto& t) { return std::int64_t(std::stoll(t)); });
  if (field.name.starts_with("seen"))
    return typed(row.seen, [](auto& t) { return parse_rfc3339(t); });
  const auto& map = field.type == FieldType::kLabels ? row.labels : row.attributes;
  const bj::value* found = map ? map->if_contains(key) : nullptr;
  return found ? json_value(*found) : std::nullopt;
}

std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) (c == '"' || c == '\\' ? out += '\\' : out) += c;
  return out + "\"";
}

std::string random_literal(Chooser& choose, const Field& field) {
  switch (field.type) {
    case FieldType::kInteger:
      return choose.integer();
    case FieldType::kReal:
      return choose.real();
    case FieldType::kBoolean:
      return choose.of({"true", "false"});
    case FieldType::kTime:
      return choose.of({"2026-11-24T10:00:00Z", "-2h", "-0s", "2026-11-24T12:00:00.500Z", "+1s",
                        "1931-01-01T00:00:00Z"});
    case FieldType::kVersion:
      return in_quotes(choose.version());
    case FieldType::kEnum:
      return choose.of({"ACTIVE", "GONE"});
    case FieldType::kAttributes:
      if (choose.one_in(2)) return choose.of({"0", "1", "0.5", "1.5", "true", "false", "-1e400"});
      return in_quotes(choose.text());
    default:
      return in_quotes(choose.text());
  }
}

std::string random_term(Chooser& choose, const std::vector<RandomRow>& rows) {
  const Field& field = fields()[choose.below(fields().size())];
  const bool map = field.type == FieldType::kLabels || field.type == FieldType::kAttributes;
  const std::string name = field.name + (map ? "." + in_quotes(choose.key()) : "");
  if (choose.one_in(6)) return name + ":*";
  if (field.type == FieldType::kId)
    return name + choose.of({" = ", " != "}) + rows[choose.below(rows.size())].id;
  const std::string literal = random_literal(choose, field);
  const bool equality = field.type == FieldType::kBoolean || field.type == FieldType::kEnum ||
                        (map && (literal == "true" || literal == "false"));
  return name +
         (equality ? choose.of({" = ", " != ", ":"})
                   : choose.of({" = ", " != ", " < ", " <= ", " > ", " >= ", ":"})) +
         literal;
}

std::string random_filter(Chooser& choose, const std::vector<RandomRow>& rows, int depth) {
  if (depth == 0 || choose.one_in(3))
    return (choose.one_in(4) ? "NOT " : "") + random_term(choose, rows);
  std::string out = choose.one_in(3) ? "NOT (" : "(";
  const std::size_t parts = 1 + choose.below(3);
  for (std::size_t i = 0; i < parts; ++i)
    out += (i == 0 ? "" : choose.of({" AND ", " OR "})) + random_filter(choose, rows, depth - 1);
  return out + ")";
}

class Filters : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!flock::testing::require({"postgres", "initdb", "psql"})) return;
    server = std::make_unique<flock::testing::Postgres>();
    server->start();
  }
  static void TearDownTestSuite() { server.reset(); }
  void SetUp() override {
    if (!server) GTEST_SKIP() << "PostgreSQL is not installed";
  }
  static postgres::Options options() {
    postgres::Options out;
    out.url = server->url();
    out.password = Secret(read_secret_file(server->password_file()));
    out.pool_size = 1;
    return out;
  }

  static Task<std::vector<RandomRow>> fill(postgres::Database& db, Chooser& choose, int count) {
    co_await db.query(Scope::system(), "DROP TABLE IF EXISTS filter_rows");
    co_await db.query(Scope::system(),
                      "CREATE TABLE filter_rows (id uuid PRIMARY KEY, name text, cores bigint, "
                      "load double precision, online boolean, seen timestamptz, version text, "
                      "state text, labels jsonb, attributes jsonb)");
    std::vector<RandomRow> rows;
    for (int i = 0; i < count; ++i) {
      rows.push_back(random_row(choose));
      const RandomRow& row = rows.back();
      const auto json = [](const std::optional<bj::object>& object) {
        return object ? std::optional(json::serialize(*object)) : std::nullopt;
      };
      Params params;
      params.text(row.id).text(row.name).text(row.cores).text(row.load).text(row.online);
      params.text(row.seen).text(row.version).text(row.state);
      params.text(json(row.labels)).text(json(row.attributes));
      co_await db.query(Scope::system(),
                        "INSERT INTO filter_rows VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                        std::move(params));
    }
    co_return rows;
  }

  static Task<std::string> explain(postgres::Database& db, std::string sql, Params params) {
    std::string out;
    const std::string text = "EXPLAIN " + sql;
    const auto plan = co_await db.query(Scope::system(), text.c_str(), std::move(params));
    for (const auto& line : plan.rows) out += line.text("QUERY PLAN") + "\n";
    co_return out;
  }

  static std::unique_ptr<flock::testing::Postgres> server;
};
std::unique_ptr<flock::testing::Postgres> Filters::server;

void add(Params& params, const std::vector<std::string>& values) {
  for (const std::string& value : values) params.text(value);
}

TEST_F(Filters, AnswerTheSameInSqlAndInMemory) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Chooser choose(seed);
  run_task(
      [&]() -> Task<void> {
        postgres::Database db(co_await asio::this_coro::executor, options());
        const auto rows = co_await fill(db, choose, 150);
        std::size_t found = 0;
        for (int round = 0; round < 1500; ++round) {
          const std::string text = random_filter(choose, rows, 3);
          const Filter filter = parse_filter(text, fields());
          EXPECT_EQ(parse_filter(to_text(filter), fields(), {.bytes = 1 << 16}), filter) << text;
          const Sql where = compile_sql(filter, fields(), 1, kNow);
          const std::string sql = "SELECT r.id FROM filter_rows r WHERE " + where.text;
          Params params;
          add(params, where.values);
          const auto answer = co_await db.query(Scope::system(), sql.c_str(), std::move(params));
          std::set<std::string> in_sql, in_memory;
          for (const auto& row : answer.rows) in_sql.insert(row.text("id"));
          for (const RandomRow& row : rows) {
            const FieldLookup lookup = [&](const Field& field, std::string_view key) {
              return look_up(row, field, key);
            };
            if (matches(filter, fields(), lookup, kNow)) in_memory.insert(row.id);
          }
          EXPECT_EQ(in_sql, in_memory) << text << "\n" << where.text;
          if (in_sql != in_memory) co_return;
          found += in_sql.size();
        }
        EXPECT_GT(found, 0u);
      },
      Duration(60'000));
}

TEST_F(Filters, PagesVisitEveryRowOnce) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Chooser choose(seed);
  run_task(
      [&]() -> Task<void> {
        postgres::Database db(co_await asio::this_coro::executor, options());
        const auto rows = co_await fill(db, choose, 60);
        for (int round = 0; round < 60; ++round) {
          std::set<std::string> names;
          for (std::size_t i = choose.below(4); i > 0; --i)
            names.insert(choose.of({"id", "name", "cores", "load", "online", "seen", "seen_once",
                                    "os.version", "release", "state"}));
          std::string text;
          for (const std::string& name : names)
            text += (text.empty() ? "" : ",") + name + choose.of({"", " desc"});
          const Order order = parse_order(text, fields());
          const auto columns = key_columns(order, fields());
          std::string select = "SELECT r.id";
          for (std::size_t i = 0; i < columns.size(); ++i)
            select += ", " + columns[i] + " AS key_" + std::to_string(i);
          select += " FROM filter_rows r";
          const std::string sorted = " ORDER BY " + order_sql(order, fields());
          const auto whole = co_await db.query(Scope::system(), (select + sorted).c_str());
          EXPECT_EQ(whole.rows.size(), rows.size());

          const std::size_t size = 1 + choose.below(9);
          std::vector<std::string> seen;
          std::string token;
          while (seen.size() <= rows.size()) {
            std::string sql = select;
            Params params;
            if (!token.empty()) {
              const Sql after =
                  after_sql(order, fields(), decode_cursor(token, order, fields(), ""), 1);
              sql += " WHERE " + after.text;
              add(params, after.values);
            }
            sql += sorted + " LIMIT " + std::to_string(size);
            const auto page = co_await db.query(Scope::system(), sql.c_str(), std::move(params));
            if (page.empty()) break;
            for (const auto& row : page.rows) seen.push_back(row.text("id"));
            CursorKeys keys;
            for (std::size_t i = 0; i < columns.size(); ++i)
              keys.push_back(page.rows.back().optional_text("key_" + std::to_string(i)));
            token = encode_cursor(order, "", keys);
          }
          std::vector<std::string> wanted;
          for (const auto& row : whole.rows) wanted.push_back(row.text("id"));
          EXPECT_EQ(seen, wanted) << text << " by " << size;
        }
      },
      Duration(60'000));
}

// A deep page starts inside the index, in both directions, and equality of a label is a lookup.
TEST_F(Filters, AreServedByIndexes) {
  run_task(
      [&]() -> Task<void> {
        postgres::Database db(co_await asio::this_coro::executor, options());
        for (const char* sql :
             {"CREATE TABLE indexed (id uuid PRIMARY KEY, org_id int NOT NULL, name text NOT NULL, "
              "seen timestamptz, labels jsonb NOT NULL)",
              "INSERT INTO indexed SELECT gen_random_uuid(), 1, 'device ' || n % 5000, "
              "CASE WHEN n % 9 > 0 THEN now() - n * interval '1 minute' END, "
              "jsonb_build_object('site', 's' || n) FROM generate_series(1, 20000) n",
              "CREATE INDEX ON indexed (org_id, name COLLATE \"C\", id)",
              "CREATE INDEX ON indexed (org_id, coalesce(seen, 'epoch'), id)",
              "CREATE INDEX ON indexed USING gin (labels)", "ANALYZE indexed"})
          co_await db.query(Scope::system(), sql);
        const FieldTable table = {
            {"id", FieldType::kId, "r.id", {}, true, false},
            {"name", FieldType::kText, "r.name", {}, true, false},
            {"seen", FieldType::kTime, "r.seen", {}, true, false, "coalesce(r.seen, 'epoch')"},
            {"labels", FieldType::kLabels, "r.labels"},
        };
        const std::pair<const char*, const char*> deep[] = {
            {"name", "device 4000"},
            {"name desc", "device 4000"},
            {"seen desc", "2026-11-20T00:00:00.000000Z"},
            {"name,id desc", "device 4000"}};
        for (const auto& [text, key] : deep) {
          const Order order = parse_order(text, table);
          const Sql after =
              after_sql(order, table, {key, "00000000-0000-4000-8000-000000000000"}, 1);
          Params params;
          add(params, after.values);
          const std::string plan =
              co_await explain(db,
                               "SELECT r.id FROM indexed r WHERE r.org_id = 1 AND " + after.text +
                                   " ORDER BY " + order_sql(order, table) + " LIMIT 50",
                               std::move(params));
          const std::size_t at = plan.find("Index Cond: ((org_id = 1) AND (");
          EXPECT_NE(at, std::string::npos) << text << "\n" << plan;
          EXPECT_EQ(plan.find("Seq Scan"), std::string::npos) << text << "\n" << plan;
        }
        const Sql where = compile_sql(parse_filter("labels.site = s77", table), table, 1, kNow);
        Params params;
        add(params, where.values);
        const std::string plan = co_await explain(
            db, "SELECT r.id FROM indexed r WHERE " + where.text, std::move(params));
        EXPECT_NE(plan.find("Bitmap Index Scan on indexed_labels_idx"), std::string::npos) << plan;
      },
      Duration(30'000));
}

}  // namespace
}  // namespace flock::domain

// SPDX-License-Identifier: Apache-2.0
#include "stores/time_series/sandbox.h"

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace flock::stores::clickhouse {
namespace {

std::string rewritten(const std::string& query) {
  return sandboxed({"acme", query, 86'400'000, 2 * 86'400'000, {"d1"}, {}}, "flock");
}

// The message of the refusal, or "" when it was taken.
std::string refusal(const std::string& query) {
  try {
    rewritten(query);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    return error.message();
  }
  return "";
}

TEST(Sandbox, ATableIsTheRowsOfOneOrganizationInOneWindow) {
  EXPECT_EQ(
      rewritten("SELECT avg(value)\nFROM metrics\nWHERE name = 'load_1m' AND value >= -1.5e3"),
      "SELECT * FROM (SELECT avg ( value ) FROM (SELECT DISTINCT fleet, device, service, "
      "name, at_ms, value FROM flock.metrics WHERE org = 'acme' AND (day BETWEEN 1 AND 2 OR "
      "day >= 100000) AND at_ms >= 86400000 AND at_ms < 172800000) AS metrics WHERE name = "
      "'load_1m' AND value >= - 1.5e3) LIMIT 2 FORMAT JSONCompact");
  EXPECT_NE(rewritten("SELECT count(*) FROM reached AS r")
                .find("(SELECT arrayJoin(['d1']) AS "
                      "device) AS r"),
            std::string::npos);
  EXPECT_NE(rewritten("select count() from waiting").find("arrayJoin(emptyArrayString())"),
            std::string::npos);
}

TEST(Sandbox, TakesWhatAnOperatorMayAsk) {
  for (const char* good :
       {"SELECT quantile(0.95)(value) FROM metrics WHERE device IN (SELECT device FROM reached)",
        "SELECT countIf(level >= 4) / count(), uniqExact(device) FROM logs WHERE service = 'web'",
        "SELECT a / b FROM (SELECT count(*) AS a, sum(value) AS b FROM metrics)",
        "SELECT max(m.value) FROM metrics AS m WHERE m.name IN ('a', 'b') AND m.level NOT IN (1, "
        "-2)",
        "SELECT avg(v) FROM (SELECT device, max(value) AS v FROM metrics GROUP BY device HAVING v "
        "> "
        "1 ORDER BY v DESC LIMIT 10)",
        "SELECT count() FROM metrics ANY LEFT JOIN (SELECT device, text FROM logs) USING (device) "
        "WHERE text LIKE '%timeout%'",
        "SELECT sum(CASE WHEN online = 1 THEN 1 ELSE 0 END) FROM connectivity",
        "SELECT any(value) * 2 FROM metrics WHERE NOT (value IS NULL) AND value BETWEEN 1 AND 2",
        "SELECT count(DISTINCT device) FROM updates WHERE phase = 'FAILED'"})
    EXPECT_EQ(refusal(good), "") << good;
}

// None of these may reach the server.
TEST(Sandbox, RefusesWhatReachesFurther) {
  for (const char* bad :
       {"", " ", "DROP TABLE metrics", "INSERT INTO metrics VALUES (1)",
        "SELECT 1 FROM metrics; DROP TABLE metrics", "SELECT 1; SELECT 2",
        // other tables, in every place where a table can stand
        "SELECT count() FROM system.tables", "SELECT count() FROM flock.metrics",
        "SELECT count() FROM tables", "SELECT count() FROM metrics, system.tables",
        "SELECT count() FROM (SELECT device FROM metrics) AS a, flock.metrics",
        "SELECT count() FROM metrics ANY INNER JOIN system.users USING (name)",
        "SELECT count() FROM metrics WHERE device IN flock.logs",
        "SELECT count() FROM metrics WHERE device IN (flock.logs)",
        "SELECT count() FROM metrics WHERE device IN (logs)",
        "SELECT count() FROM metrics WHERE device IN ((logs))",
        "SELECT count() FROM metrics WHERE device IN (device)",
        "SELECT count() AS t FROM metrics WHERE device IN t",
        "SELECT 1 AS system, 2 AS tables FROM metrics WHERE device IN (system.tables)",
        "SELECT 1 AS flock FROM metrics", "SELECT 1 AS logs FROM metrics",
        "SELECT in(device, logs) FROM metrics", "SELECT globalIn(device, system.one) FROM metrics",
        "SELECT metrics FROM metrics", "SELECT count() FROM \"system\".tables",
        "SELECT count() FROM `system`.tables", "SELECT system.tables FROM metrics",
        "SELECT org FROM metrics", "SELECT day FROM metrics", "SELECT * FROM metrics",
        "SELECT metrics.* FROM metrics", "SELECT metrics.org FROM metrics",
        // functions that read, wait, tell, or blow up
        "SELECT count() FROM url('http://127.0.0.1/', CSV, 'a String')",
        "SELECT count() FROM file('/etc/passwd', CSV, 'a String')",
        "SELECT count() FROM remote('127.0.0.1', system, one)",
        "SELECT count() FROM merge(flock, 'metrics')", "SELECT count() FROM numbers(1000000000)",
        "SELECT file('/etc/passwd') FROM metrics", "SELECT sleep(3) FROM metrics",
        "SELECT sleepEachRow(3) FROM metrics", "SELECT SLEEP(3) FROM metrics",
        "SELECT dictGetString('d', 'a', 1) FROM metrics",
        "SELECT joinGet('t', 'a', 1) FROM metrics", "SELECT hostName() FROM metrics",
        "SELECT version() FROM metrics", "SELECT currentUser() FROM metrics",
        "SELECT getSetting('x') FROM metrics", "SELECT range(1000000000) FROM metrics",
        "SELECT repeat('a', 1000000000) FROM metrics", "SELECT arrayJoin(range(10)) FROM metrics",
        "SELECT throwIf(1) FROM metrics", "SELECT cast(1 AS UInt8) FROM metrics",
        // settings, formats and other clauses
        "SELECT 1 FROM metrics SETTINGS readonly = 0",
        "SELECT 1 AS SETTINGS, 2 AS readonly FROM metrics SETTINGS readonly = 0",
        "SELECT 1 AS SETTINGS, 2 AS readonly, * SETTINGS readonly = 0",
        "SELECT 1 AS settings, 2 AS x FROM metrics GROUP BY x settings x = 0",
        "SELECT 1 AS settings, 2 AS x FROM metrics ORDER BY x DESC settings x = 0",
        "SELECT 1 AS settings, 2 AS x FROM metrics LIMIT 1 settings x = 0",
        "SELECT 1 AS settings, 2 AS x FROM metrics WHERE (x) settings x = 0",
        "SELECT 1 AS settings, 2 AS x FROM metrics WHERE x IS NULL settings x = 0",
        "SELECT 1 FROM metrics FORMAT TSV", "SELECT 1 FROM metrics INTO OUTFILE '/tmp/x'",
        "SELECT 1 FROM metrics UNION ALL SELECT 2 FROM metrics",
        "WITH 1 AS a SELECT a FROM metrics",
        "SELECT 1 FROM metrics) UNION ALL (SELECT 1 FROM metrics",
        "SELECT 1 FROM metrics ARRAY JOIN value", "SELECT 1 FROM metrics FINAL",
        "SELECT 1 FROM metrics m", "SELECT value v FROM metrics",
        "SELECT value AS from FROM metrics",
        // what could be read in two ways
        "SELECT 1 -- x\nFROM metrics", "SELECT 1 /* x */ FROM metrics",
        "SELECT 1 # x\nFROM metrics", "SELECT 'a\\' FROM metrics", "SELECT 'a''b' FROM metrics",
        "SELECT 'a FROM metrics", "SELECT 'ä' FROM metrics",
        "SELECT 1\xa0"
        "FROM metrics",
        "SELECT {a:UInt8} FROM metrics", "SELECT @@version FROM metrics",
        "SELECT 0x41 FROM metrics", "SELECT 1.2.3 FROM metrics", "SELECT (1 FROM metrics",
        "SELECT 1) FROM metrics", "SELECT x -> 1 FROM metrics"})
    EXPECT_NE(refusal(bad), "") << bad;
  EXPECT_NE(refusal("SELECT " + std::string(8200, ' ') + "1 FROM metrics"), "");
  std::string deep = "SELECT ";
  for (int i = 0; i < 100; ++i) deep += "(";
  EXPECT_NE(refusal(deep), "");
  EXPECT_NE(refusal(std::string("SELECT 1\0 FROM metrics", 22)), "");
}

TEST(Sandbox, SaysWhatAndWhere) {
  EXPECT_EQ(refusal("SELECT sleep(3) FROM metrics"),
            "the query cannot be run: 'sleep' is no function that is offered (at character 8)");
  EXPECT_EQ(refusal("SELECT mood FROM metrics"),
            "the query cannot be run: 'mood' is no column, and no name given with AS (at character "
            "8)");
  EXPECT_EQ(refusal("SELECT count( FROM metrics"),
            "the query cannot be run: a parenthesis is not closed (at the end)");
}

// After `readonly` nothing can be set: it must be the last.
TEST(Sandbox, IsReadOnlyAndNothingCanBeSetAfterwards) {
  EXPECT_TRUE(sandbox_settings().ends_with("&readonly=1"));
}

}  // namespace
}  // namespace flock::stores::clickhouse

// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "base/bytes.h"
#include "base/config.h"
#include "base/files.h"
#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "base/random.h"
#include "testing/process.h"
#include "testing/run_task.h"

namespace flock {
namespace {

using flock::testing::code_of;
using flock::testing::TempDir;

TEST(Error, DescribesItselfInOneLine) {
  const Error error = Error(Code::kConflict, "taken")
                          .with("name", "x")
                          .problems({{"/a", "too_long", "is too long"}});
  EXPECT_EQ(error.describe(), "taken (name=x); /a: is too long");
}

TEST(Id, IsUniqueSortedAndStrict) {
  std::string last;
  for (int i = 0; i < 10'000; ++i) {
    const std::string id = new_uuid();
    EXPECT_TRUE(is_uuid(id));
    EXPECT_LT(last, id);
    EXPECT_EQ(id[14], '7');
    last = id;
  }
  for (const char* bad :
       {"", "x", "0190F3A2-7c11-7abc-8def-0123456789ab", "0190f3a27c117abc8def0123456789ab",
        "0190f3a2-7c11-7abc-8def-0123456789a/"}) {
    EXPECT_EQ(code_of([&] { DeviceId::parse(bad); }), Code::kInvalidArgument) << bad;
  }
}

TEST(Time, GoesThroughTextUnchanged) {
  for (const std::int64_t ms : {std::int64_t{0}, std::int64_t{1'764'000'000'123},
                                std::int64_t{4'102'444'800'000}, std::int64_t{-1}}) {
    EXPECT_EQ(to_unix_ms(parse_rfc3339(to_rfc3339(from_unix_ms(ms)))), ms);
  }
  EXPECT_EQ(to_rfc3339(from_unix_ms(951'782'400'250)), "2000-02-29T00:00:00.250Z");
  EXPECT_EQ(parse_rfc3339("2026-11-23T12:00:00+02:00"), parse_rfc3339("2026-11-23T10:00:00Z"));
  for (const char* bad : {"", "2026-11-23", "2026-11-23T10:00:00", "2026-13-01T00:00:00Z",
                          "2026-02-30T00:00:00Z", "2026-11-23T24:00:00Z", "2026-11-23T10:00:00.Z",
                          "2026-11-23T10:00:00Zx", "2026-11-23T10:00:00+2:00"}) {
    EXPECT_EQ(code_of([&] { parse_rfc3339(bad); }), Code::kInvalidArgument) << bad;
  }
}

TEST(Duration, ReadsAndWritesTheShortForm) {
  EXPECT_EQ(parse_duration("1h30m"), Duration(5'400'000));
  EXPECT_EQ(parse_duration("250ms"), Duration(250));
  for (const char* text : {"0s", "90s", "1h", "7d", "250ms"})
    EXPECT_EQ(to_string(parse_duration(text)), text);
  for (const char* bad :
       {"", "5", "s", "-5s", "5 s", "5x", "99999999999999999999s", "9999999999999d"}) {
    EXPECT_EQ(code_of([&] { parse_duration(bad); }), Code::kInvalidArgument) << bad;
  }
}

TEST(Bytes, EncodeAndDecodeAgainAndRefuseOthers) {
  for (std::size_t size = 0; size < 70; ++size) {
    const std::string bytes = random_bytes(size);
    EXPECT_EQ(from_hex(to_hex(bytes)), bytes);
    EXPECT_EQ(from_base64(to_base64(bytes)), bytes);
    EXPECT_EQ(from_base64url(to_base64url(bytes)), bytes);
  }
  EXPECT_EQ(to_base64("foob"), "Zm9vYg==");
  EXPECT_EQ(url_encode("a b/ü"), "a%20b%2F%C3%BC");
  EXPECT_FALSE(from_base64("Zm9vYg"));
  EXPECT_FALSE(from_base64url("A"));
  EXPECT_FALSE(from_base64url("AB"));  // left-over bits: not canonical
  EXPECT_FALSE(from_base64url("A+"));
  EXPECT_FALSE(from_hex("0g"));
}

TEST(Json, NamesThePlaceAndKeepsTheLimits) {
  try {
    json::parse("{\n  \"a\": }");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(error.describe().find("line 2"), std::string::npos) << error.describe();
  }
  EXPECT_EQ(code_of([] { json::parse(std::string(100, '['), {.bytes = 1000, .depth = 8}); }),
            Code::kTooLarge);
  EXPECT_EQ(code_of([] { json::parse("[1,2,3]", {.bytes = 3, .depth = 8}); }), Code::kTooLarge);
  for (const char* bad : {"", "{", "{}x", "\"\\ud800\"", "\"\xff\"", "01", "nul"})
    EXPECT_EQ(code_of([&] { json::parse(bad); }), Code::kInvalidArgument) << bad;
  std::string quoted;
  json::append_quoted(quoted, "a\"\n\x01\xff\xc3\xa4");
  EXPECT_EQ(quoted, "\"a\\\"\\n\\u0001\xef\xbf\xbd\xc3\xa4\"");
}

TEST(JsonReader, FindsEveryFaultAtOnce) {
  const auto value =
      json::parse(R"({"name":"","count":"x","list":[1],"extra":1,"deep":{"odd":true}})");
  json::Reader in(value);
  in.string("name");
  in.integer("count", {.min = 1, .max = 5});
  in.string("missing");
  in.optional_strings("list", 5, {});
  const boost::json::value deep(*in.optional_object("deep"));
  json::Reader inner(deep, "/deep", in);
  inner.finish();
  try {
    in.finish();
    FAIL();
  } catch (const Error& error) {
    std::string places;
    for (const Problem& problem : error.problems()) places += problem.pointer + " ";
    EXPECT_EQ(places, "/name /count /missing /list/0 /deep/odd /extra ");
  }
}

struct Sample {
  std::string url = "default";
  std::int64_t size = 8;
  Secret password;
  std::vector<std::string> hosts;
  config::Schema schema{"TEST_"};
  Sample() {
    schema.add("db.url", url, "where");
    schema.add("db.pool_size", size, "how many", 1, 100);
    schema.add("db.password", password, "secret");
    schema.add("hosts", hosts, "names");
  }
};

TEST(Config, TakesTheFileThenTheEnvironmentThenFlags) {
  const TempDir dir;
  Sample sample;
  config::Sources sources;
  sources.file =
      dir.write("c.yaml", "db: {url: file, pool_size: 3, password: hush}\nhosts: [a, b]\n");
  sources.environment = {{"TEST_DB_POOL_SIZE", "4"}};
  sources.arguments = {"--db.pool-size=5"};
  sample.schema.load(sources);
  EXPECT_EQ(sample.url, "file");
  EXPECT_EQ(sample.size, 5);
  EXPECT_EQ(sample.hosts.size(), 2u);
  EXPECT_EQ(sample.schema.print().find("hush"), std::string::npos);
  EXPECT_NE(sample.schema.print().find("****"), std::string::npos);
}

TEST(Config, RefusesUnknownKeysAndBadValuesAllAtOnce) {
  const TempDir dir;
  Sample sample;
  config::Sources sources;
  sources.file = dir.write("c.yaml", "db: {urll: x, pool_size: many}\n");
  sources.environment = {{"TEST_NOPE", "1"}};
  sources.arguments = {"--wat=1", "stray", "--db.url"};
  try {
    sample.schema.load(sources);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.problems().size(), 6u) << error.describe();
    EXPECT_NE(error.describe().find("did you mean db.url"), std::string::npos);
  }
}

TEST(Files, AreReplacedWholeOrNotAtAll) {
  const TempDir dir;
  const std::string path = dir.file("f");
  EXPECT_FALSE(read_file(path));
  write_file_atomic(path, "one");
  write_file_atomic(path, "two");
  EXPECT_EQ(read_file(path), "two");
  EXPECT_EQ(code_of([&] { read_file(path, 2); }), Code::kTooLarge);
  EXPECT_EQ(code_of([&] { write_file_atomic(dir.file("no/such/folder"), "x"); }),
            Code::kUnavailable);
  // /dev/full answers every write with ENOSPC: a full disk.
  EXPECT_EQ(code_of([] { write_file_atomic("/dev/full/x", "x"); }), Code::kUnavailable);
  dir.write("s", "secret\n\n");
  EXPECT_EQ(read_secret_file(dir.file("s")), "secret");
}

TEST(Secret, NeverShowsItself) {
  const Secret secret("hush");
  std::ostringstream out;
  out << secret << to_string(secret);
  EXPECT_EQ(out.str().find("hush"), std::string::npos);
  EXPECT_TRUE(constant_time_equal("abc", "abc"));
  EXPECT_FALSE(constant_time_equal("abc", "abd"));
  EXPECT_FALSE(constant_time_equal("abc", "ab"));
}

}  // namespace
}  // namespace flock

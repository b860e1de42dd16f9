// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cstdio>
#include <fstream>
#include <functional>
#include <limits>
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

TEST(Id, OfTheSameTimeAndBitsIsTheSame) {
  const std::string zeros(10, '\0'), ones(32, '\xff');
  EXPECT_EQ(uuid_of(0, zeros), "00000000-0000-7000-8000-000000000000");
  EXPECT_EQ(uuid_of(0x0193b1a0ffee, ones), "0193b1a0-ffee-7fff-bfff-ffffffffffff");
}

TEST(Id, KindsDoNotMix) {
  static_assert(!std::is_convertible_v<DeviceId, FleetId>);
  static_assert(!std::is_constructible_v<DeviceId, std::string>);
  EXPECT_TRUE(DeviceId().empty());
  const DeviceId id = DeviceId::fresh();
  EXPECT_EQ(DeviceId::parse(id.text()), id);
  try {
    DeviceId::parse(std::string(5000, 'x'));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(error.message().find("device id"), std::string::npos);
    EXPECT_LT(error.describe().size(), 300u);  // a long wrong id does not fill the log
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
  // Exactly at the limits is within them.
  EXPECT_NO_THROW(json::parse("[1]", {.bytes = 3, .depth = 8}));
  EXPECT_NO_THROW(json::parse("[[[[1]]]]", {.bytes = 100, .depth = 4}));
  EXPECT_EQ(code_of([] { json::parse("[[[[[1]]]]]", {.bytes = 100, .depth = 4}); }),
            Code::kTooLarge);
  EXPECT_EQ(code_of([] { json::parse(R"({"a":{"a":{"a":1}}})", {.bytes = 100, .depth = 2}); }),
            Code::kTooLarge);
  EXPECT_TRUE(json::is_utf8("a\xc3\xa4\xf0\x9f\x98\x80"));
  for (const char* bad : {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "a\xc3"})
    EXPECT_FALSE(json::is_utf8(bad));
  for (const char* bad :
       {"", "{", "{}x", "\"\\ud800\"", "\"\xff\"", "01", "nul", "[1e999]", R"({"a":-1e999})"})
    EXPECT_EQ(code_of([&] { json::parse(bad); }), Code::kInvalidArgument) << bad;
  std::string quoted;
  json::append_quoted(quoted, "a\"\n\x01\xff\xc3\xa4");
  EXPECT_EQ(quoted, "\"a\\\"\\n\\u0001\xef\xbf\xbd\xc3\xa4\"");
}

TEST(JsonReader, FindsEveryFaultAtOnce) {
  const auto value =
      json::parse(R"({"name":"","count":"x","list":[1,"a\u0000"],"extra":1,"deep":{"odd":true}})");
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
    EXPECT_EQ(places, "/name /count /missing /list/0 /list/1 /deep/odd /extra ");
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

// What each source says about the same key, the later one wins; each alone is enough.
TEST(Config, EverySourceBeatsTheOneBefore) {
  const TempDir dir;
  const auto url = [&](bool file, bool environment, bool flag) {
    Sample sample;
    config::Sources sources;
    if (file) sources.file = dir.write("c.yaml", "db: {url: from-file}\n");
    if (environment) sources.environment = {{"TEST_DB_URL", "from-environment"}};
    if (flag) sources.arguments = {"--db.url", "from-flag"};
    sample.schema.load(sources);
    return sample.url;
  };
  EXPECT_EQ(url(false, false, false), "default");
  EXPECT_EQ(url(true, false, false), "from-file");
  EXPECT_EQ(url(true, true, false), "from-environment");
  EXPECT_EQ(url(true, true, true), "from-flag");
  EXPECT_EQ(url(true, false, true), "from-flag");
}

TEST(Config, TellsWhatIsWrongWithItsFile) {
  const TempDir dir;
  const auto load = [&](const std::string& path) {
    Sample sample;
    config::Sources sources;
    sources.file = path;
    sample.schema.load(sources);
    return sample.schema.print();
  };
  EXPECT_EQ(code_of([&] { load(dir.file("missing.yaml")); }), Code::kNotFound);
  EXPECT_EQ(code_of([&] { load(dir.path()); }), Code::kUnavailable);
  for (const char* bad :
       {"db: [1", "db: 5", "db: {url: [a]}", "hosts: [[a], b]", "hosts: [{a: b}]", "[1, 2]", "text",
        "db: {url: a}\ndb: {url: b}", "db: {url: a, url: b}", "db: {pool_size: 0}",
        "db: {pool_size: 1.5}", "? [a]\n: b", "a: &x {b: *x}", "db: {url: a}\n---\ndb: {url: b}"}) {
    EXPECT_EQ(code_of([&] { load(dir.write("c.yaml", bad)); }), Code::kInvalidArgument) << bad;
  }
  const std::string plain = load("");
  EXPECT_EQ(load(dir.write("c.yaml", "")), plain);
  EXPECT_EQ(load(dir.write("c.yaml", "# nothing\ndb:\n  # url: x\n")), plain);
}

TEST(Config, SuggestsTheNameAsItsSourceSpellsIt) {
  Sample sample;
  config::Sources sources;
  sources.environment = {{"TEST_DB_POOLSIZE", "1"}};
  sources.arguments = {"--db.pass-word=hush"};
  try {
    sample.schema.load(sources);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(error.describe().find("did you mean TEST_DB_POOL_SIZE"), std::string::npos)
        << error.describe();
    EXPECT_NE(error.describe().find("did you mean --db.password"), std::string::npos)
        << error.describe();
    EXPECT_EQ(error.describe().find("hush"), std::string::npos);
  }
}

// print() is a file that load() takes.
TEST(Config, ReadsWhatItPrints) {
  const TempDir dir;
  Sample first, second;
  first.url = "a: \"b\" #c\n\xc3\xa4";
  first.hosts = {"x, y", "", "[z]"};
  config::Sources sources;
  sources.file = dir.write("c.yaml", first.schema.print());
  second.schema.load(sources);
  EXPECT_EQ(second.url, first.url);
  EXPECT_EQ(second.hosts, first.hosts);
  EXPECT_EQ(first.schema.help().find("****"), std::string::npos);
}

// What `write` sends to stderr, line by line.
std::string logged(const std::function<void()>& write) {
  ::testing::internal::CaptureStderr();
  write();
  std::fflush(stderr);
  return ::testing::internal::GetCapturedStderr();
}

TEST(Log, WritesOneJsonObjectALine) {
  log::set_format(log::Format::kJson);
  const Error error = Error(Code::kConflict, "taken").with("name", "x");
  const std::string out = logged([&] {
    log::debug("not wanted");
    log::info("hello", {{"text", "a \"b\"\n\xff"},
                        {"number", -5},
                        {"share", 0.25},
                        {"nan", std::numeric_limits<double>::quiet_NaN()},
                        {"yes", true},
                        {"key", Secret("hush")}});
    log::error("failed", error, {{"job", "y"}});
  });
  std::istringstream lines(out);
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  const boost::json::object first = json::parse(line).as_object();
  EXPECT_EQ(first.at("level"), "info");
  EXPECT_EQ(first.at("msg"), "hello");
  EXPECT_EQ(first.at("text"), "a \"b\"\n\xef\xbf\xbd");
  EXPECT_EQ(first.at("number"), -5);
  EXPECT_EQ(first.at("share"), 0.25);
  EXPECT_TRUE(first.at("nan").is_null());
  EXPECT_EQ(first.at("yes"), true);
  EXPECT_EQ(first.at("key"), "****");
  EXPECT_EQ(to_rfc3339(parse_rfc3339(first.at("ts").as_string())), first.at("ts").as_string());
  ASSERT_TRUE(std::getline(lines, line));
  const boost::json::object second = json::parse(line).as_object();
  EXPECT_EQ(second.at("error.code"), "conflict");
  EXPECT_EQ(second.at("name"), "x");
  EXPECT_EQ(second.at("job"), "y");
  EXPECT_FALSE(std::getline(lines, line));
}

// What a device sends must not steer the terminal of whoever reads the log.
TEST(Log, KeepsControlCharactersOutOfPrettyLines) {
  log::set_format(log::Format::kPretty);
  const std::string out = logged([] {
    log::info("hello", {{"plain", "abc"}, {"bad", "\x1b[31mred"}, {"cr", "a\rb"}, {"del", "\x7f"}});
  });
  log::set_format(log::Format::kJson);
  EXPECT_NE(out.find("plain=abc"), std::string::npos) << out;
  for (const char control : {'\x1b', '\r', '\x7f'})
    EXPECT_EQ(out.find(control), std::string::npos) << out;
}

TEST(Log, KnowsItsLevels) {
  for (const char* name : {"debug", "info", "warn", "error", "off"}) log::parse_level(name);
  EXPECT_EQ(code_of([] { log::parse_level("loud"); }), Code::kInvalidArgument);
  log::set_level(log::Level::kOff);
  EXPECT_EQ(logged([] { log::error("silence"); }), "");
  log::set_level(log::Level::kInfo);
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

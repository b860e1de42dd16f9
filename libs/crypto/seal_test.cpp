// SPDX-License-Identifier: Apache-2.0
#include "crypto/seal.h"

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "testing/process.h"
#include "testing/run_task.h"

namespace flock::crypto {
namespace {

using flock::testing::code_of;

Secret key(char fill) { return Secret(std::string(32, fill)); }
SealingKeys ring() { return {{{"2026-01", key('a')}, {"2026-02", key('b')}}, "2026-02"}; }

// What went wrong, in full; it must not tell the value.
std::string failure(const SealingKeys& keys, const std::string& sealed, const char* context) {
  try {
    keys.open(sealed, context);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kCorrupt);
    return error.describe();
  }
  return "";
}

TEST(Seal, OpensWhatItSealed) {
  const SealingKeys keys = ring();
  for (const std::string& value :
       {std::string(), std::string("x"), std::string("a\0b", 3), std::string(100'000, 'z')}) {
    const std::string sealed = keys.seal(value, "org/1");
    EXPECT_EQ(keys.open(sealed, "org/1"), value);
    EXPECT_EQ(SealingKeys::sealed_with(sealed), "2026-02");
    EXPECT_NE(keys.seal(value, "org/1"), sealed);  // another nonce
  }
}

// Sealed by another program (Python's cryptography, AESGCM) with key 32 * "a", nonce 12 * "n" and
// the additional data "v1.2026-01.org/1": the format holds.
TEST(Seal, OpensWhatAnotherImplementationSealed) {
  EXPECT_EQ(ring().open("v1.2026-01.bm5ubm5ubm5ubm5uvIvyr3a5rv05YyMtrW5WdYoe3Jvh", "org/1"),
            "hello");
}

TEST(Seal, RefusesAnotherContextKeyOrByte) {
  const SealingKeys keys = ring();
  const std::string sealed = keys.seal("the-secret", "org/1/a");
  EXPECT_NE(failure(keys, sealed, "org/2/a").find("2026-02"), std::string::npos);
  EXPECT_EQ(failure(keys, sealed, "org/2/a").find("secret"), std::string::npos);
  EXPECT_NE(failure(keys, sealed, ""), "");
  const SealingKeys old({{"2026-01", key('a')}}, "2026-01");
  EXPECT_NE(failure(old, sealed, "org/1/a").find("2026-02"), std::string::npos);
  const SealingKeys changed({{"2026-02", key('x')}}, "2026-02");
  EXPECT_NE(failure(changed, sealed, "org/1/a"), "");
  // Under the id of another key, even were the keys equal.
  const SealingKeys same({{"2026-02", key('b')}, {"2026-03", key('b')}}, "2026-02");
  std::string moved = sealed;
  moved[9] = '3';
  EXPECT_NE(failure(same, moved, "org/1/a"), "");

  for (std::size_t i = 0; i < sealed.size(); ++i) {
    std::string bad = sealed;
    bad[i] = bad[i] == 'A' ? 'B' : 'A';
    EXPECT_NE(failure(keys, bad, "org/1/a"), "") << i;
    EXPECT_NE(failure(keys, sealed.substr(0, i), "org/1/a"), "") << i;
  }
  for (const char* bad :
       {"", ".", "v1.", "v1..", "v1.a", "v1.a.", "v2.2026-02.AAAA", "v1.A/B.AAAA"})
    EXPECT_NE(failure(keys, bad, "org/1/a"), "") << bad;
}

TEST(Seal, RotatesKeys) {
  const SealingKeys before({{"2026-01", key('a')}}, "2026-01"), after = ring();
  const std::string old = before.seal("value", "c");
  EXPECT_EQ(after.open(old, "c"), "value");
  EXPECT_NE(SealingKeys::sealed_with(old), after.current_id());
  EXPECT_EQ(SealingKeys::sealed_with(after.seal(after.open(old, "c"), "c")), after.current_id());
}

TEST(Seal, LoadsAFolderOfKeys) {
  const flock::testing::TempDir dir;
  EXPECT_EQ(code_of([&] { SealingKeys::load(dir.path()); }), Code::kInvalidArgument);
  EXPECT_EQ(code_of([&] { SealingKeys::load(dir.file("none")); }), Code::kInvalidArgument);
  dir.write("2026-01.key", to_base64(std::string(32, 'a')) + "\n");
  dir.write("2026-02.key", to_base64(std::string(32, 'b')));
  dir.write("README", "passed over");
  EXPECT_EQ(SealingKeys::load(dir.path()).current_id(), "2026-02");
  EXPECT_EQ(SealingKeys::load(dir.path()).open(ring().seal("v", "c"), "c"), "v");
  dir.write("current", "2026-01\n");
  EXPECT_EQ(SealingKeys::load(dir.path()).current_id(), "2026-01");
  dir.write("current", "2027-01\n");
  EXPECT_EQ(code_of([&] { SealingKeys::load(dir.path()); }), Code::kInvalidArgument);
  dir.write("current", "2026-01\n");
  dir.write("2026-03.key", to_base64(std::string(31, 'c')));
  EXPECT_EQ(code_of([&] { SealingKeys::load(dir.path()); }), Code::kInvalidArgument);
  dir.write("2026-03.key", "not base64");
  EXPECT_EQ(code_of([&] { SealingKeys::load(dir.path()); }), Code::kInvalidArgument);
}

TEST(Seal, RefusesBadRings) {
  using Keys = std::map<std::string, Secret>;
  const auto make = [](Keys keys, const char* current) {
    return code_of([&] { SealingKeys(std::move(keys), current); });
  };
  EXPECT_EQ(make({}, ""), Code::kInvalidArgument);
  EXPECT_EQ(make({{"a", key('a')}}, "b"), Code::kInvalidArgument);
  EXPECT_EQ(make({{"a.b", key('a')}}, "a.b"), Code::kInvalidArgument);
  EXPECT_EQ(make({{"", key('a')}}, ""), Code::kInvalidArgument);
  EXPECT_EQ(make({{"a", Secret("short")}}, "a"), Code::kInvalidArgument);
}

}  // namespace
}  // namespace flock::crypto

// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "base/bytes.h"
#include "crypto/jwt.h"
#include "testing/run_task.h"

namespace flock::crypto {
namespace {

using flock::testing::code_of;
namespace bj = boost::json;

const TimePoint kNow = from_unix_ms(1'764'000'000'000);

bj::object claims(std::int64_t life = 600) {
  const std::int64_t now = to_unix_ms(kNow) / 1000;
  return {{"iss", "me"}, {"sub", "x"}, {"aud", "you"}, {"iat", now}, {"exp", now + life}};
}
Expected expected() {
  Expected out;
  out.issuer = "me";
  out.audience = "you";
  return out;
}

TEST(Key, KeepsItsFormsAndSigns) {
  for (const Key::Kind kind : {Key::Kind::kP256, Key::Kind::kEd25519}) {
    const Key key = Key::generate(kind);
    const Key back = Key::from_private_pem(key.private_pem()),
              open = Key::from_public_pem(key.public_pem()), jwk = Key::from_jwk(key.public_jwk());
    EXPECT_EQ(back.public_pem(), key.public_pem());
    EXPECT_EQ(jwk.thumbprint(), key.thumbprint());
    EXPECT_FALSE(open.has_private());
    const std::string signature = back.sign("message");
    EXPECT_EQ(signature.size(), 64u);
    EXPECT_TRUE(open.verify("message", signature));
    EXPECT_TRUE(jwk.verify("message", signature));
    EXPECT_FALSE(open.verify("messagE", signature));
    EXPECT_FALSE(open.verify("message", signature.substr(1)));
    EXPECT_FALSE(Key::generate(kind).verify("message", signature));
  }
  for (const char* bad : {"", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}) {
    EXPECT_EQ(code_of([&] { Key::from_public_pem(bad); }), Code::kInvalidArgument);
    EXPECT_EQ(code_of([&] { Key::from_private_pem(bad); }), Code::kInvalidArgument);
  }
}

// RFC 7638 3.1 is about RSA; this pair is RFC 8037, appendix A.3.
TEST(Key, HasTheThumbprintOfTheStandard) {
  const Key key = Key::from_jwk(
      R"({"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})");
  EXPECT_EQ(key.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

TEST(Hash, AgreesWithKnownVectors) {
  EXPECT_EQ(to_hex(sha256("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  // RFC 4231, test case 2.
  EXPECT_EQ(to_hex(hmac_sha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(Jwt, TakesAGoodTokenAndSaysWhyNotForOthers) {
  const Key key = Key::generate(Key::Kind::kP256), other = Key::generate(Key::Kind::kP256);
  JwkSet set;
  set.add(key);
  const std::string good = sign_jwt(key, claims());
  EXPECT_EQ(verify_jwt(good, JwkSet::parse(set.to_json()), expected(), kNow).at("sub").as_string(),
            "x");

  const auto refused = [&](const std::string& token, const char* reason, TimePoint now = kNow,
                           Expected with = expected()) {
    try {
      verify_jwt(token, set, with, now);
      ADD_FAILURE() << "accepted: " << reason;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kUnauthenticated);
      EXPECT_NE(error.message().find(reason), std::string::npos)
          << error.message() << " is not " << reason;
      if (token.size() > 30)
        EXPECT_EQ(error.describe().find(token.substr(0, 30)), std::string::npos);
    }
  };
  refused("", "malformed");
  refused("a.b", "malformed");
  refused("a.b.c", "malformed");
  refused(std::string(20'000, 'a'), "too long");
  refused(good + "A", "bad signature");
  refused(good + "*", "malformed");
  refused(good.substr(0, good.size() - 4) + "AAAA", "bad signature");
  refused(sign_jwt(other, claims()), "unknown key");
  refused(sign_jwt(other, claims(), key.thumbprint()), "bad signature");
  refused(sign_jwt(key, claims(-600)), "expired");
  refused(good, "expired", kNow + Duration(700'000));
  refused(good, "future", kNow - Duration(100'000));
  Expected wrong = expected();
  wrong.audience = "else";
  refused(good, "audience", kNow, wrong);
  wrong = expected();
  wrong.issuer = "else";
  refused(good, "issuer", kNow, wrong);
  wrong = expected();
  wrong.max_age = Duration(60'000);
  refused(good, "too old", kNow + Duration(120'000), wrong);
  bj::object later = claims();
  later["nbf"] = to_unix_ms(kNow) / 1000 + 300;
  refused(sign_jwt(key, later), "not valid yet");
  bj::object endless = claims();
  endless.erase("exp");
  refused(sign_jwt(key, endless), "no expiry");
  // "alg" is never the token's to choose.
  const std::string body = good.substr(good.find('.'));
  const std::string none = to_base64url(R"({"alg":"none","kid":")" + key.thumbprint() + "\"}");
  refused(none + body, "wrong algorithm");
  refused(to_base64url(R"({"alg":"HS256","kid":")" + key.thumbprint() + "\"}") + body,
          "wrong algorithm");
}

TEST(Wireguard, MakesKeysOfTheRightForm) {
  const WireguardKey key = generate_wireguard_key();
  EXPECT_EQ(from_base64(key.public_key)->size(), 32u);
  EXPECT_NE(key.private_key, key.public_key);
}

}  // namespace
}  // namespace flock::crypto

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

TEST(Keys, OfOneSeedAreOneKey) {
  const Key one = Key::from_seed("fleet 1, device 7"), same = Key::from_seed("fleet 1, device 7");
  EXPECT_EQ(one.private_pem(), same.private_pem());
  EXPECT_NE(one.public_pem(), Key::from_seed("fleet 1, device 8").public_pem());
  EXPECT_TRUE(Key::from_public_pem(one.public_pem()).verify("text", one.sign("text")));
  EXPECT_EQ(Key::from_private_pem(one.private_pem()).public_pem(), one.public_pem());
}

TEST(Key, KeepsItsFormsAndSigns) {
  for (const Key::Kind kind : {Key::Kind::kP256, Key::Kind::kEd25519, Key::Kind::kRsa}) {
    const Key key = Key::generate(kind);
    const Key back = Key::from_private_pem(key.private_pem()),
              open = Key::from_public_pem(key.public_pem()), jwk = Key::from_jwk(key.public_jwk());
    EXPECT_EQ(back.public_pem(), key.public_pem());
    EXPECT_EQ(jwk.thumbprint(), key.thumbprint());
    EXPECT_FALSE(open.has_private());
    const std::string signature = back.sign("message");
    EXPECT_EQ(signature.size(), kind == Key::Kind::kRsa ? 256u : 64u);
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

// RFC 7638, 3.1 (RSA) and RFC 8037, appendix A.3 (Ed25519).
TEST(Key, HasTheThumbprintOfTheStandard) {
  const Key rsa = Key::from_jwk(
      R"({"kty":"RSA","e":"AQAB","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtV)"
      R"(T86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7)"
      R"(_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91C)"
      R"(bOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEg)"
      R"(U8awapJzKnqDKgw"})");
  EXPECT_EQ(rsa.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
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

// The reason `token` is refused for, or "" when it is taken.
std::string refusal(const std::string& token, const JwkSet& set, Expected with = expected(),
                    TimePoint now = kNow) {
  try {
    verify_jwt(token, set, with, now);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUnauthenticated);
    return error.message().substr(error.message().find(": ") + 2);
  }
}

JwkSet set_of(const Key& key) {
  JwkSet set;
  set.add(key);
  return set;
}

// RFC 7515, appendices A.2 (RS256) and A.3 (ES256): the same claims under two keys.
TEST(Jwt, TakesTheTokensOfTheStandard) {
  const std::string body =
      "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVl"
      "fQ.";
  const Key rsa = Key::from_jwk(
      R"({"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHm)"
      R"(fHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9)"
      R"(wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4)"
      R"(uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9)"
      R"(gb54h4FRWyuXpoQ"})");
  const Key p256 = Key::from_jwk(
      R"({"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",)"
      R"("y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})");
  const std::string rs256 =
      "eyJhbGciOiJSUzI1NiJ9." + body +
      "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5"
      "jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb"
      "1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QO"
      "YEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
  const std::string es256 =
      "eyJhbGciOiJFUzI1NiJ9." + body +
      "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
  Expected joe;
  joe.issuer = "joe";
  const TimePoint then = from_unix_ms(1'300'819'000'000);
  EXPECT_TRUE(verify_jwt(rs256, rsa, joe, then).at("http://example.com/is_root").as_bool());
  EXPECT_TRUE(verify_jwt(es256, p256, joe, then).at("http://example.com/is_root").as_bool());
  EXPECT_EQ(code_of([&] { verify_jwt(rs256, rsa, joe, kNow); }), Code::kUnauthenticated);
  EXPECT_EQ(code_of([&] { verify_jwt(rs256, p256, joe, then); }), Code::kUnauthenticated);
  EXPECT_EQ(code_of([&] { verify_jwt(es256, rsa, joe, then); }), Code::kUnauthenticated);
}

// The header's `kid` names the key, the key's own type decides the algorithm.
TEST(Jwt, RefusesASwappedKeyType) {
  const Key p256 = Key::generate(Key::Kind::kP256), ed = Key::generate(Key::Kind::kEd25519);
  EXPECT_EQ(refusal(sign_jwt(ed, claims()), set_of(ed)), "");
  EXPECT_EQ(refusal(sign_jwt(ed, claims(), p256.thumbprint()), set_of(p256)), "wrong algorithm");
  EXPECT_EQ(refusal(sign_jwt(p256, claims(), ed.thumbprint()), set_of(ed)), "wrong algorithm");
  const Key rsa = Key::generate(Key::Kind::kRsa);
  EXPECT_EQ(refusal(sign_jwt(rsa, claims()), set_of(rsa)), "");
  EXPECT_EQ(refusal(sign_jwt(rsa, claims(), p256.thumbprint()), set_of(p256)), "wrong algorithm");
  EXPECT_EQ(refusal(sign_jwt(p256, claims(), rsa.thumbprint()), set_of(rsa)), "wrong algorithm");
  for (const char* name : {"RS384", "PS256", "HS256", "none", "ES256", "rs256"}) {
    const std::string head =
        to_base64url(bj::serialize(bj::object{{"alg", name}, {"kid", rsa.thumbprint()}}));
    const std::string text = head + "." + to_base64url(bj::serialize(claims()));
    EXPECT_EQ(refusal(text + "." + to_base64url(rsa.sign(text)), set_of(rsa)), "wrong algorithm");
    EXPECT_EQ(refusal(text + "." + to_base64url(hmac_sha256(rsa.public_pem(), text)), set_of(rsa)),
              "wrong algorithm");
  }
  // Signed by the right key under another name of the algorithm.
  for (const char* name : {"ES384", "es256", "EdDSA", "none", "None", "", "HS256", "RS256"}) {
    const std::string head = to_base64url(
        bj::serialize(bj::object{{"alg", name}, {"kid", p256.thumbprint()}, {"typ", "JWT"}}));
    const std::string text = head + "." + to_base64url(bj::serialize(claims()));
    EXPECT_EQ(refusal(text + "." + to_base64url(p256.sign(text)), set_of(p256)), "wrong algorithm")
        << name;
    EXPECT_EQ(refusal(text + ".", set_of(p256)), "wrong algorithm") << name;
  }
  // A public key as an HMAC secret is the classic confusion.
  const std::string head =
      to_base64url(bj::serialize(bj::object{{"alg", "HS256"}, {"kid", p256.thumbprint()}}));
  const std::string text = head + "." + to_base64url(bj::serialize(claims()));
  EXPECT_EQ(refusal(text + "." + to_base64url(hmac_sha256(p256.public_pem(), text)), set_of(p256)),
            "wrong algorithm");
}

TEST(Jwt, NoticesAnyChangedCharacter) {
  const Key key = Key::generate(Key::Kind::kP256);
  const JwkSet set = set_of(key);
  const std::string good = sign_jwt(key, claims());
  for (std::size_t i = 0; i < good.size(); i += 3) {
    std::string bad = good;
    bad[i] = bad[i] == 'A' ? 'B' : 'A';
    EXPECT_NE(refusal(bad, set), "") << i;
    EXPECT_NE(refusal(good.substr(0, i), set), "") << i;
  }
  EXPECT_NE(refusal(good + ".", set), "");
  EXPECT_NE(refusal("." + good, set), "");
  EXPECT_NE(refusal(good.substr(0, good.rfind('.') + 1), set), "");
}

TEST(Jwt, ReadsTimesAndAudiencesStrictly) {
  const Key key = Key::generate(Key::Kind::kP256);
  const JwkSet set = set_of(key);
  const auto with = [&](const char* name, bj::value value) {
    bj::object body = claims();
    body[name] = std::move(value);
    return refusal(sign_jwt(key, body), set);
  };
  const std::int64_t now = to_unix_ms(kNow) / 1000;
  EXPECT_EQ(with("aud", bj::parse(R"(["a","you"])")), "");
  EXPECT_EQ(with("aud", bj::parse(R"(["a",5])")), "wrong audience");
  EXPECT_EQ(with("aud", "you2"), "wrong audience");
  EXPECT_EQ(with("aud", nullptr), "wrong audience");
  EXPECT_EQ(with("iss", bj::parse(R"(["me"])")), "wrong issuer");
  EXPECT_EQ(with("exp", static_cast<double>(now) + 0.5), "");
  EXPECT_EQ(with("exp", bj::value(std::to_string(now + 60))), "exp is not a number");
  EXPECT_EQ(with("exp", nullptr), "exp is not a number");
  EXPECT_EQ(with("exp", 1e300), "exp is out of range");
  EXPECT_EQ(with("exp", INT64_MAX), "exp is out of range");
  EXPECT_EQ(with("exp", UINT64_MAX), "exp is not a number");
  EXPECT_EQ(with("nbf", INT64_MIN), "nbf is out of range");
  EXPECT_EQ(with("iat", now + 31), "issued in the future");
  // The leeway is 30 s, on both ends, and not a second more.
  EXPECT_EQ(with("exp", now - 29), "");
  EXPECT_EQ(with("exp", now - 30), "expired");
  EXPECT_EQ(with("nbf", now + 30), "");
  EXPECT_EQ(with("nbf", now + 31), "not valid yet");
  // Nor can a caller ask for more.
  Expected lax = expected();
  lax.leeway = Duration(3'600'000);
  EXPECT_EQ(refusal(sign_jwt(key, claims(-30)), set, lax), "expired");
}

TEST(Jwt, RefusesACriticalHeaderAndAMissingKeyId) {
  const Key key = Key::generate(Key::Kind::kP256);
  const auto signed_with = [&](const bj::object& header) {
    const std::string text =
        to_base64url(bj::serialize(header)) + "." + to_base64url(bj::serialize(claims()));
    return text + "." + to_base64url(key.sign(text));
  };
  EXPECT_EQ(refusal(signed_with({{"alg", "ES256"}, {"kid", key.thumbprint()}, {"crit", {"b64"}}}),
                    set_of(key)),
            "unknown critical header");
  EXPECT_EQ(refusal(signed_with({{"alg", "ES256"}}), set_of(key)), "unknown key");
  EXPECT_EQ(refusal(signed_with({{"alg", "ES256"}, {"kid", 7}}), set_of(key)), "unknown key");
}

TEST(JwkSet, KeepsWhatItKnowsAndPassesOverTheRest) {
  const Key p256 = Key::generate(Key::Kind::kP256), ed = Key::generate(Key::Kind::kEd25519);
  JwkSet set;
  set.add(p256);
  set.add(ed);
  const JwkSet back = JwkSet::parse(set.to_json());
  EXPECT_EQ(back.find(p256.thumbprint())->public_pem(), p256.public_pem());
  EXPECT_EQ(back.find(ed.thumbprint())->public_pem(), ed.public_pem());
  EXPECT_EQ(back.find("other"), nullptr);
  EXPECT_EQ(back.find(""), nullptr);
  EXPECT_EQ(set.to_json().find("\"d\""), std::string::npos);  // public halves only

  // RFC 7517, 5: other types and curves are ignored, the keys beside them work.
  bj::object mine = bj::parse(p256.public_jwk()).as_object();
  mine["kid"] = "mine";
  const bj::object others[] = {{{"kty", "RSA"}, {"n", "AQAB"}, {"e", "AQAB"}},
                               {{"kty", "EC"}, {"crv", "P-384"}, {"x", "AA"}, {"y", "AA"}},
                               {{"kty", "EC"}, {"crv", "secp256k1"}, {"x", "AA"}, {"y", "AA"}},
                               {{"kty", "OKP"}, {"crv", "X25519"}, {"x", "AA"}},
                               {{"kty", "oct"}, {"k", "AAAA"}},
                               {{"kty", "future"}},
                               {{"kid", "none"}}};
  for (const bj::object& other : others) {
    const JwkSet mixed = JwkSet::parse(bj::serialize(bj::object{{"keys", bj::array{other, mine}}}));
    ASSERT_NE(mixed.find("mine"), nullptr) << bj::serialize(other);
    EXPECT_EQ(mixed.find("none"), nullptr);
    EXPECT_EQ(refusal(sign_jwt(p256, claims(), "mine"), mixed), "");
  }
  // A key that claims to be one of ours and is broken is an error, not a hole.
  bj::object off_curve = mine;
  off_curve["y"] = to_base64url(std::string(32, '\1'));
  for (const std::string& bad :
       {std::string("x"), std::string("[]"), std::string("{}"), std::string("{\"keys\":{}}"),
        std::string("{\"keys\":[1]}"), bj::serialize(bj::object{{"keys", bj::array{off_curve}}}),
        std::string(R"({"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]})"),
        std::string(R"({"keys":[{"kty":"EC","crv":"P-256"}]})"),
        std::string(R"({"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]})")}) {
    EXPECT_EQ(code_of([&] { JwkSet::parse(bad); }), Code::kInvalidArgument) << bad;
  }
}

TEST(JwkSet, TakesOnlyStrongSignatureKeysWithAnIdOfTheirOwn) {
  const Key rsa = Key::generate(Key::Kind::kRsa), p256 = Key::generate(Key::Kind::kP256);
  const auto jwk = [](const Key& key, const bj::object& changes) {
    bj::object out = bj::parse(key.public_jwk()).as_object();
    out["kid"] = "k";
    for (const auto& [name, value] : changes) {
      if (value.is_null()) {
        out.erase(name);
      } else {
        out[name] = value;
      }
    }
    return out;
  };
  const auto set = [](bj::array keys) {
    return JwkSet::parse(bj::serialize(bj::object{{"keys", std::move(keys)}}));
  };
  EXPECT_EQ(refusal(sign_jwt(rsa, claims(), "k"), set({jwk(rsa, {})})), "");
  EXPECT_EQ(peek_kid(sign_jwt(rsa, claims(), "k")), "k");
  EXPECT_NE(set({jwk(rsa, {{"use", nullptr}, {"alg", nullptr}})}).find("k"), nullptr);
  EXPECT_NE(set({jwk(rsa, {{"key_ops", {"verify"}}})}).find("k"), nullptr);
  const bj::object ignored[] = {{{"use", "enc"}},
                                {{"use", 7}},
                                {{"alg", "RSA-OAEP"}},
                                {{"alg", "PS256"}},
                                {{"alg", 5}},
                                {{"key_ops", {"encrypt"}}},
                                {{"key_ops", "verify"}},
                                {{"n", to_base64url(std::string(255, '\xff'))}},
                                {{"n", nullptr}}};
  for (const bj::object& changes : ignored)
    EXPECT_EQ(set({jwk(rsa, changes)}).size(), 0u) << bj::serialize(changes);
  const bj::object broken[] = {{{"e", "AA"}},
                               {{"e", "AQ"}},
                               {{"e", "Ag"}},
                               {{"e", nullptr}},
                               {{"e", to_base64url(std::string(9, '\xff'))}},
                               {{"n", to_base64url(std::string(256, '\xfe'))}},
                               {{"n", to_base64url('\1' + std::string(255, '\xff'))}},
                               {{"n", to_base64url(std::string(1025, '\xff'))}}};
  for (const bj::object& changes : broken) {
    const auto parse = [&] { set({jwk(rsa, changes)}); };
    EXPECT_EQ(code_of(parse), Code::kInvalidArgument) << bj::serialize(changes);
  }
  // Two keys of one id: neither is used. The same key twice is harmless.
  EXPECT_EQ(set({jwk(rsa, {}), jwk(p256, {}), jwk(p256, {})}).size(), 0u);
  EXPECT_EQ(set({jwk(rsa, {}), jwk(p256, {}), jwk(p256, {{"kid", "b"}})}).size(), 1u);
  EXPECT_EQ(set({jwk(rsa, {}), jwk(rsa, {})}).size(), 1u);
}

TEST(Wireguard, MakesKeysOfTheRightForm) {
  const WireguardKey key = generate_wireguard_key();
  EXPECT_EQ(from_base64(key.public_key)->size(), 32u);
  EXPECT_NE(key.private_key, key.public_key);
}

}  // namespace
}  // namespace flock::crypto

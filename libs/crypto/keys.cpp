// SPDX-License-Identifier: Apache-2.0
#include "crypto/keys.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <openssl/sha.h>

#include <boost/json.hpp>
#include <vector>

#include "base/bytes.h"
#include "base/json.h"
#include "crypto/key_impl.h"

namespace flock::crypto {
namespace {

using SignaturePtr = std::unique_ptr<ECDSA_SIG, Deleter<ECDSA_SIG_free>>;
using ParamBuilderPtr = std::unique_ptr<OSSL_PARAM_BLD, Deleter<OSSL_PARAM_BLD_free>>;
using NumberPtr = std::unique_ptr<BIGNUM, Deleter<BN_free>>;
using ContextPtr = std::unique_ptr<BN_CTX, Deleter<BN_CTX_free>>;
using GroupPtr = std::unique_ptr<EC_GROUP, Deleter<EC_GROUP_free>>;
using PointPtr = std::unique_ptr<EC_POINT, Deleter<EC_POINT_free>>;
using ParamsPtr = std::unique_ptr<OSSL_PARAM, Deleter<OSSL_PARAM_free>>;

// OpenSSL cleans up when the program ends, in the reverse order of what was set up: begun before
// any pool of threads, it waits for what their threads still hold.
[[maybe_unused]] const int kOpenSslReady =
    OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CRYPTO_STRINGS, nullptr);

constexpr int kCoordinate = 32;  // bytes of r, s, x and y on P-256
// Bits of an RSA modulus: what is safe (RFC 7518, 3.3), and what is still quick to verify.
constexpr int kRsaMin = 2048, kRsaMax = 8192;

Error bad_key(std::string message) {
  return openssl_error(Code::kInvalidArgument, std::move(message));
}

Key wrap(PkeyPtr pkey, bool has_private) {
  Key::Kind kind;
  if (EVP_PKEY_is_a(pkey.get(), "ED25519")) {
    kind = Key::Kind::kEd25519;
  } else if (EVP_PKEY_is_a(pkey.get(), "EC")) {
    char group[32] = "";
    EVP_PKEY_get_group_name(pkey.get(), group, sizeof group, nullptr);
    if (std::string_view(group) != "prime256v1") throw bad_key("only the curve P-256 is supported");
    kind = Key::Kind::kP256;
  } else if (EVP_PKEY_is_a(pkey.get(), "RSA")) {
    const int bits = EVP_PKEY_get_bits(pkey.get());
    if (bits < kRsaMin || bits > kRsaMax) throw bad_key("an RSA key must have 2048 to 8192 bits");
    kind = Key::Kind::kRsa;
  } else {
    throw bad_key("only P-256, Ed25519 and RSA keys are supported");
  }
  return Key(std::make_shared<Key::Impl>(Key::Impl{std::move(pkey), kind, has_private}));
}

// 0x04 || x || y, or the 32 bytes of an Ed25519 key.
std::string public_point(EVP_PKEY* pkey) {
  unsigned char bytes[128];
  std::size_t size = 0;
  check(EVP_PKEY_get_octet_string_param(pkey, OSSL_PKEY_PARAM_PUB_KEY, bytes, sizeof bytes,
                                        &size) == 1,
        "public key");
  std::string point(reinterpret_cast<char*>(bytes), size);
  if (EVP_PKEY_is_a(pkey, "EC") && point.size() == 33) {
    check(EVP_PKEY_set_utf8_string_param(pkey, OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT,
                                         "uncompressed") == 1,
          "point format");
    return public_point(pkey);
  }
  return point;
}

std::string rsa_number(EVP_PKEY* pkey, const char* name) {
  BIGNUM* number = nullptr;
  check(EVP_PKEY_get_bn_param(pkey, name, &number) == 1, "public key");
  const NumberPtr owner(number);
  std::string bytes(static_cast<std::size_t>(BN_num_bytes(number)), '\0');
  BN_bn2bin(number, reinterpret_cast<unsigned char*>(bytes.data()));
  return bytes;
}

// The members that RFC 7638 hashes, in lexical order.
std::string thumbprint_input(const Key::Impl& key) {
  if (key.kind == Key::Kind::kRsa) {
    return R"({"e":")" + to_base64url(rsa_number(key.pkey.get(), OSSL_PKEY_PARAM_RSA_E)) +
           R"(","kty":"RSA","n":")" +
           to_base64url(rsa_number(key.pkey.get(), OSSL_PKEY_PARAM_RSA_N)) + "\"}";
  }
  const std::string point = public_point(key.pkey.get());
  if (key.kind == Key::Kind::kEd25519) {
    return R"({"crv":"Ed25519","kty":"OKP","x":")" + to_base64url(point) + "\"}";
  }
  return R"({"crv":"P-256","kty":"EC","x":")" + to_base64url(point.substr(1, kCoordinate)) +
         R"(","y":")" + to_base64url(point.substr(1 + kCoordinate)) + "\"}";
}

std::string der_to_raw(std::string_view der) {
  const auto* at = reinterpret_cast<const unsigned char*>(der.data());
  const SignaturePtr signature(d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(der.size())));
  check(signature != nullptr, "signature");
  std::string raw(2 * kCoordinate, '\0');
  auto* out = reinterpret_cast<unsigned char*>(raw.data());
  check(BN_bn2binpad(ECDSA_SIG_get0_r(signature.get()), out, kCoordinate) == kCoordinate &&
            BN_bn2binpad(ECDSA_SIG_get0_s(signature.get()), out + kCoordinate, kCoordinate) ==
                kCoordinate,
        "signature");
  return raw;
}

std::string raw_to_der(std::string_view raw) {
  const auto* at = reinterpret_cast<const unsigned char*>(raw.data());
  const SignaturePtr signature(ECDSA_SIG_new());
  check(ECDSA_SIG_set0(signature.get(), BN_bin2bn(at, kCoordinate, nullptr),
                       BN_bin2bn(at + kCoordinate, kCoordinate, nullptr)) == 1,
        "signature");
  unsigned char* der = nullptr;
  const int size = i2d_ECDSA_SIG(signature.get(), &der);
  check(size > 0, "signature");
  std::string out(reinterpret_cast<char*>(der), static_cast<std::size_t>(size));
  OPENSSL_free(der);
  return out;
}

PkeyPtr key_from_params(const char* type, OSSL_PARAM_BLD* builder,
                        int selection = EVP_PKEY_PUBLIC_KEY) {
  const ParamsPtr params(OSSL_PARAM_BLD_to_param(builder));
  const PkeyContextPtr context(EVP_PKEY_CTX_new_from_name(nullptr, type, nullptr));
  EVP_PKEY* pkey = nullptr;
  if (EVP_PKEY_fromdata_init(context.get()) != 1 ||
      EVP_PKEY_fromdata(context.get(), &pkey, selection, params.get()) != 1) {
    throw bad_key("not a valid key");
  }
  return PkeyPtr(pkey);
}

PkeyPtr key_from_point(const char* type, std::string_view group, std::string_view point) {
  const ParamBuilderPtr builder(OSSL_PARAM_BLD_new());
  if (!group.empty()) {
    OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME, group.data(),
                                    group.size());
  }
  OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(),
                                   point.size());
  return key_from_params(type, builder.get());
}

PkeyPtr key_from_modulus(std::string_view modulus, std::string_view exponent) {
  const auto number = [](std::string_view bytes) {
    return NumberPtr(BN_bin2bn(reinterpret_cast<const unsigned char*>(bytes.data()),
                               static_cast<int>(bytes.size()), nullptr));
  };
  const NumberPtr n = number(modulus), e = number(exponent);
  // An even or tiny exponent is none; one over 64 bits only makes every verification slow.
  if (!BN_is_odd(n.get()) || !BN_is_odd(e.get()) || BN_is_one(e.get()) || BN_num_bits(e.get()) > 64)
    throw bad_key("not a valid RSA key");
  const ParamBuilderPtr builder(OSSL_PARAM_BLD_new());
  OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_N, n.get());
  OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_E, e.get());
  return key_from_params("RSA", builder.get());
}

const EVP_MD* digest_of(Key::Kind kind) {
  return kind == Key::Kind::kEd25519 ? nullptr : EVP_sha256();  // Ed25519 hashes by itself
}

}  // namespace

Key Key::generate(Kind kind) {
  EVP_PKEY* pkey = nullptr;
  switch (kind) {
    case Kind::kP256:
      pkey = EVP_EC_gen("P-256");
      break;
    case Kind::kEd25519:
      pkey = EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
      break;
    case Kind::kRsa:
      pkey = EVP_RSA_gen(kRsaMin);
      break;
  }
  check(pkey != nullptr, "key generation");
  return wrap(PkeyPtr(pkey), true);
}

Key Key::from_seed(std::string_view seed) {
  const GroupPtr group(EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1));
  const std::string digest = sha256(seed);
  NumberPtr scalar(BN_bin2bn(reinterpret_cast<const unsigned char*>(digest.data()),
                             static_cast<int>(digest.size()), nullptr));
  const ContextPtr context(BN_CTX_new());
  check(group && scalar && context, "a key from a seed");
  // Into [1, order): the digest is at most one order above.
  check(BN_nnmod(scalar.get(), scalar.get(), EC_GROUP_get0_order(group.get()), context.get()) == 1,
        "a key from a seed");
  if (BN_is_zero(scalar.get())) BN_one(scalar.get());
  const PointPtr point(EC_POINT_new(group.get()));
  unsigned char bytes[1 + 2 * kCoordinate];
  check(point &&
            EC_POINT_mul(group.get(), point.get(), scalar.get(), nullptr, nullptr, context.get()) ==
                1 &&
            EC_POINT_point2oct(group.get(), point.get(), POINT_CONVERSION_UNCOMPRESSED, bytes,
                               sizeof bytes, context.get()) == sizeof bytes,
        "a key from a seed");
  const ParamBuilderPtr builder(OSSL_PARAM_BLD_new());
  check(builder &&
            OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1",
                                            0) == 1 &&
            OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_PRIV_KEY, scalar.get()) == 1 &&
            OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY, bytes,
                                             sizeof bytes) == 1,
        "a key from a seed");
  return wrap(key_from_params("EC", builder.get(), EVP_PKEY_KEYPAIR), true);
}

Key Key::from_private_pem(std::string_view pem) {
  const BioPtr bio = memory_bio(pem);
  PkeyPtr pkey(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  if (!pkey) throw bad_key("not a private key in PEM");
  return wrap(std::move(pkey), true);
}

Key Key::from_public_pem(std::string_view pem) {
  const BioPtr bio = memory_bio(pem);
  PkeyPtr pkey(PEM_read_bio_PUBKEY(bio.get(), nullptr, nullptr, nullptr));
  if (!pkey) throw bad_key("not a public key in PEM");
  return wrap(std::move(pkey), false);
}

Key Key::from_jwk(std::string_view text) {
  const boost::json::value document = json::parse(text, {.bytes = 16 * 1024, .depth = 8});
  const boost::json::object* jwk = document.if_object();
  const auto member = [&](std::string_view name) -> std::string {
    const auto* value = jwk ? jwk->if_contains(name) : nullptr;
    return value && value->is_string() ? std::string(value->get_string()) : "";
  };
  const auto coordinate = [&](std::string_view name) {
    const auto bytes = from_base64url(member(name));
    if (!bytes || bytes->size() != kCoordinate) throw bad_key("not a valid JWK");
    return *bytes;
  };
  if (member("kty") == "EC" && member("crv") == "P-256") {
    return wrap(key_from_point("EC", "P-256", "\x04" + coordinate("x") + coordinate("y")), false);
  }
  if (member("kty") == "OKP" && member("crv") == "Ed25519") {
    return wrap(key_from_point("ED25519", "", coordinate("x")), false);
  }
  if (member("kty") == "RSA") {
    const auto n = from_base64url(member("n")), e = from_base64url(member("e"));
    if (!n || !e) throw bad_key("not a valid JWK");
    return wrap(key_from_modulus(*n, *e), false);
  }
  throw bad_key("only P-256, Ed25519 and RSA keys are supported");
}

Key::Kind Key::kind() const { return impl_->kind; }
std::string_view Key::algorithm() const {
  switch (impl_->kind) {
    case Kind::kP256:
      return "ES256";
    case Kind::kEd25519:
      return "EdDSA";
    case Kind::kRsa:
      return "RS256";
  }
  FLOCK_ASSERT(false);
}
bool Key::has_private() const { return impl_->has_private; }

std::string Key::private_pem() const {
  FLOCK_ASSERT(impl_->has_private);
  const BioPtr bio = memory_bio();
  check(PEM_write_bio_PKCS8PrivateKey(bio.get(), impl_->pkey.get(), nullptr, nullptr, 0, nullptr,
                                      nullptr) == 1,
        "private PEM");
  return content(bio.get());
}

std::string Key::public_pem() const {
  const BioPtr bio = memory_bio();
  check(PEM_write_bio_PUBKEY(bio.get(), impl_->pkey.get()) == 1, "public PEM");
  return content(bio.get());
}

std::string Key::public_der() const {
  const BioPtr bio = memory_bio();
  check(i2d_PUBKEY_bio(bio.get(), impl_->pkey.get()) == 1, "public DER");
  return content(bio.get());
}

std::string Key::public_jwk() const {
  boost::json::object jwk = json::parse(thumbprint_input(*impl_)).as_object();
  jwk["alg"] = algorithm();
  jwk["use"] = "sig";
  jwk["kid"] = thumbprint();
  return boost::json::serialize(jwk);
}

std::string Key::thumbprint() const { return to_base64url(sha256(thumbprint_input(*impl_))); }

std::string Key::libtrust_id() const {
  static constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  const std::string digest = sha256(public_der()).substr(0, 30);
  std::string text;
  std::uint32_t bits = 0;
  int count = 0, letters = 0;
  for (const char c : digest) {
    bits = bits << 8 | static_cast<unsigned char>(c);
    count += 8;
    while (count >= 5) {
      count -= 5;
      if (letters > 0 && letters % 4 == 0) text += ':';
      text += kAlphabet[bits >> count & 31];
      ++letters;
    }
  }
  return text;
}

std::string Key::sign(std::string_view message) const {
  FLOCK_ASSERT(impl_->has_private);
  const DigestContextPtr context(EVP_MD_CTX_new());
  const EVP_MD* digest = digest_of(impl_->kind);
  const auto* data = reinterpret_cast<const unsigned char*>(message.data());
  std::size_t size = 0;
  check(EVP_DigestSignInit(context.get(), nullptr, digest, nullptr, impl_->pkey.get()) == 1 &&
            EVP_DigestSign(context.get(), nullptr, &size, data, message.size()) == 1,
        "sign");
  std::string signature(size, '\0');
  check(EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                       data, message.size()) == 1,
        "sign");
  signature.resize(size);
  return impl_->kind == Kind::kP256 ? der_to_raw(signature) : signature;
}

bool Key::verify(std::string_view message, std::string_view signature) const {
  const std::size_t wanted = impl_->kind == Kind::kRsa
                                 ? static_cast<std::size_t>(EVP_PKEY_get_size(impl_->pkey.get()))
                                 : std::size_t{2 * kCoordinate};
  if (signature.size() != wanted) return false;
  const std::string encoded =
      impl_->kind == Kind::kP256 ? raw_to_der(signature) : std::string(signature);
  const DigestContextPtr context(EVP_MD_CTX_new());
  const EVP_MD* digest = digest_of(impl_->kind);
  check(EVP_DigestVerifyInit(context.get(), nullptr, digest, nullptr, impl_->pkey.get()) == 1,
        "verify");
  const bool good =
      EVP_DigestVerify(context.get(), reinterpret_cast<const unsigned char*>(encoded.data()),
                       encoded.size(), reinterpret_cast<const unsigned char*>(message.data()),
                       message.size()) == 1;
  ERR_clear_error();
  return good;
}

std::string sha256(std::string_view data) {
  // Looking the algorithm up costs more than hashing a few hundred bytes: once for the process.
  static const EVP_MD* const algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  thread_local const DigestContextPtr context(EVP_MD_CTX_new());
  std::string digest(SHA256_DIGEST_LENGTH, '\0');
  check(EVP_DigestInit_ex2(context.get(), algorithm, nullptr) == 1 &&
            EVP_DigestUpdate(context.get(), data.data(), data.size()) == 1 &&
            EVP_DigestFinal_ex(context.get(), reinterpret_cast<unsigned char*>(digest.data()),
                               nullptr) == 1,
        "a SHA-256 hash");
  return digest;
}

std::string hmac_sha256(std::string_view key, std::string_view data) {
  std::string mac(SHA256_DIGEST_LENGTH, '\0');
  unsigned int size = 0;
  check(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
             reinterpret_cast<const unsigned char*>(data.data()), data.size(),
             reinterpret_cast<unsigned char*>(mac.data()), &size) != nullptr,
        "HMAC");
  return mac;
}

WireguardKey generate_wireguard_key() {
  const PkeyPtr pkey(EVP_PKEY_Q_keygen(nullptr, nullptr, "X25519"));
  check(pkey != nullptr, "X25519");
  unsigned char secret[32], open[32];
  std::size_t secret_size = sizeof secret, open_size = sizeof open;
  check(EVP_PKEY_get_raw_private_key(pkey.get(), secret, &secret_size) == 1 &&
            EVP_PKEY_get_raw_public_key(pkey.get(), open, &open_size) == 1,
        "X25519");
  WireguardKey key;
  key.private_key = to_base64({reinterpret_cast<char*>(secret), secret_size});
  key.public_key = to_base64({reinterpret_cast<char*>(open), open_size});
  OPENSSL_cleanse(secret, sizeof secret);
  return key;
}

}  // namespace flock::crypto

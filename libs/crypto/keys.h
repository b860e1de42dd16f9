// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace flock::crypto {

// A P-256, Ed25519 or RSA key pair, or only its public half. Cheap to copy. All failures:
// Error{kInvalidArgument} for bad input. Flock's own keys are P-256 or Ed25519; RSA (2048 to 8192
// bits, PKCS#1 v1.5 with SHA-256) is there to read what identity providers sign.
class Key {
 public:
  enum class Kind { kP256, kEd25519, kRsa };
  static Key generate(Kind kind);  // RSA: 2048 bits
  // The same P-256 key for the same seed, which must be kept as the key is: for simulated devices
  // that come back as who they were.
  static Key from_seed(std::string_view seed);
  static Key from_private_pem(std::string_view pem);  // PKCS#8
  static Key from_public_pem(std::string_view pem);   // SubjectPublicKeyInfo
  static Key from_jwk(std::string_view json);         // public members only

  Kind kind() const;
  bool has_private() const;
  std::string private_pem() const;
  std::string public_pem() const;
  std::string public_der() const;  // SubjectPublicKeyInfo
  std::string public_jwk() const;  // JSON text with kty, its members, alg, use, kid
  std::string thumbprint() const;  // RFC 7638, base64url SHA-256; used as `kid`
  // libtrust key id: what docker-registry wants as `kid` (shared/recipes 3 of the docs: 12 groups
  // of base32).
  std::string libtrust_id() const;

  std::string_view algorithm() const;  // RFC 7518: "ES256", "EdDSA", "RS256"
  // ES256: raw r||s, 64 bytes. Ed25519: 64 bytes. RS256: as long as the modulus.
  std::string sign(std::string_view message) const;
  bool verify(std::string_view message, std::string_view signature) const;

  struct Impl;
  explicit Key(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  const Impl& impl() const { return *impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

std::string sha256(std::string_view data);  // 32 raw bytes
std::string hmac_sha256(std::string_view key, std::string_view data);

// X25519 for WireGuard: both halves base64, as `wg genkey` and `wg pubkey` print them.
struct WireguardKey {
  std::string private_key, public_key;
};
WireguardKey generate_wireguard_key();

// A self-signed CA or a certificate signed by one; PEM. For local stacks and tests.
struct Certificate {
  std::string certificate_pem, key_pem;
};
Certificate make_ca(const std::string& common_name, int days);
// `names`: DNS names or IP addresses for subjectAltName.
Certificate issue_certificate(const Certificate& ca, const std::vector<std::string>& names,
                              int days);
// A certificate for an existing private key, as docker-registry's rootcertbundle wants.
std::string self_signed_for(const Key& key, const std::string& common_name, int days);

}  // namespace flock::crypto

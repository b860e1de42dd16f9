// SPDX-License-Identifier: Apache-2.0
#include <openssl/x509v3.h>

#include "base/random.h"
#include "crypto/key_impl.h"

namespace flock::crypto {
namespace {

X509Ptr blank(EVP_PKEY* subject_key, const std::string& common_name, int days) {
  X509Ptr certificate(X509_new());
  check(certificate != nullptr, "certificate");
  X509_set_version(certificate.get(), X509_VERSION_3);
  // 63 random bits: unique and positive (RFC 5280, 4.1.2.2).
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate.get()),
                          1 + random_below(std::uint64_t{1} << 62));
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -300);
  X509_time_adj_ex(X509_getm_notAfter(certificate.get()), days, 0, nullptr);
  X509_set_pubkey(certificate.get(), subject_key);
  X509_NAME* name = X509_get_subject_name(certificate.get());
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(common_name.data()),
                             static_cast<int>(common_name.size()), -1, 0);
  return certificate;
}

void extend(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  if (extension == nullptr)
    throw openssl_error(Code::kInvalidArgument, "bad certificate extension").with("value", value);
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

std::string pem(X509* certificate) {
  const BioPtr bio = memory_bio();
  check(PEM_write_bio_X509(bio.get(), certificate) == 1, "certificate PEM");
  return content(bio.get());
}

bool is_address(const std::string& name) {
  return name.find(':') != std::string::npos ||
         name.find_first_not_of("0123456789.") == std::string::npos;
}

}  // namespace

Certificate make_ca(const std::string& common_name, int days) {
  const Key key = Key::generate(Key::Kind::kP256);
  EVP_PKEY* pkey = key.impl().pkey.get();
  const X509Ptr certificate = blank(pkey, common_name, days);
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(certificate.get()));
  extend(certificate.get(), certificate.get(), NID_basic_constraints, "critical,CA:TRUE");
  extend(certificate.get(), certificate.get(), NID_key_usage, "critical,keyCertSign,cRLSign");
  extend(certificate.get(), certificate.get(), NID_subject_key_identifier, "hash");
  check(X509_sign(certificate.get(), pkey, EVP_sha256()) > 0, "certificate signature");
  return {pem(certificate.get()), key.private_pem()};
}

Certificate issue_certificate(const Certificate& ca, const std::vector<std::string>& names,
                              int days) {
  FLOCK_ASSERT(!names.empty());
  const BioPtr bio = memory_bio(ca.certificate_pem);
  const X509Ptr issuer(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  if (!issuer) throw openssl_error(Code::kInvalidArgument, "not a certificate in PEM");
  const Key issuer_key = Key::from_private_pem(ca.key_pem);

  const Key key = Key::generate(Key::Kind::kP256);
  const X509Ptr certificate = blank(key.impl().pkey.get(), names.front(), days);
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(issuer.get()));
  std::string alternatives;
  for (const std::string& name : names) {
    alternatives +=
        (alternatives.empty() ? "" : ",") + std::string(is_address(name) ? "IP:" : "DNS:") + name;
  }
  extend(certificate.get(), issuer.get(), NID_basic_constraints, "critical,CA:FALSE");
  extend(certificate.get(), issuer.get(), NID_key_usage, "critical,digitalSignature");
  extend(certificate.get(), issuer.get(), NID_ext_key_usage, "serverAuth,clientAuth");
  extend(certificate.get(), issuer.get(), NID_subject_alt_name, alternatives);
  extend(certificate.get(), issuer.get(), NID_authority_key_identifier, "keyid");
  check(X509_sign(certificate.get(), issuer_key.impl().pkey.get(), EVP_sha256()) > 0,
        "certificate signature");
  return {pem(certificate.get()), key.private_pem()};
}

std::string self_signed_for(const Key& key, const std::string& common_name, int days) {
  EVP_PKEY* pkey = key.impl().pkey.get();
  const X509Ptr certificate = blank(pkey, common_name, days);
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(certificate.get()));
  extend(certificate.get(), certificate.get(), NID_basic_constraints, "critical,CA:FALSE");
  extend(certificate.get(), certificate.get(), NID_key_usage, "critical,digitalSignature");
  check(X509_sign(certificate.get(), pkey, EVP_sha256()) > 0, "certificate signature");
  return pem(certificate.get());
}

}  // namespace flock::crypto

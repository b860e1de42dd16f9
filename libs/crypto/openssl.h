// SPDX-License-Identifier: Apache-2.0
// Private to this room: RAII over OpenSSL 3. Included by .cpp files only.
#pragma once

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"

namespace flock::crypto {

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using PkeyPtr = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;
using PkeyContextPtr = std::unique_ptr<EVP_PKEY_CTX, Deleter<EVP_PKEY_CTX_free>>;
using DigestContextPtr = std::unique_ptr<EVP_MD_CTX, Deleter<EVP_MD_CTX_free>>;
using BioPtr = std::unique_ptr<BIO, Deleter<BIO_free_all>>;
using X509Ptr = std::unique_ptr<X509, Deleter<X509_free>>;

// OpenSSL's own reason goes into the context; its error queue is emptied.
inline Error openssl_error(Code code, std::string message) {
  char reason[160] = "unknown";
  if (const unsigned long number = ERR_get_error())
    ERR_error_string_n(number, reason, sizeof reason);
  ERR_clear_error();
  return Error(code, std::move(message)).with("openssl", reason);
}
inline void check(bool ok, const char* what) {
  if (!ok) throw openssl_error(Code::kInternal, std::string("cryptography failed: ") + what);
}

inline BioPtr memory_bio() {
  BioPtr bio(BIO_new(BIO_s_mem()));
  check(bio != nullptr, "memory");
  return bio;
}
inline BioPtr memory_bio(std::string_view data) {
  BioPtr bio(BIO_new_mem_buf(data.data(), static_cast<int>(data.size())));
  check(bio != nullptr, "memory");
  return bio;
}
inline std::string content(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<std::size_t>(size));
}

}  // namespace flock::crypto

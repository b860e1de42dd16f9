// SPDX-License-Identifier: Apache-2.0
#include "base/secret.h"

#include <openssl/crypto.h>

#include <ostream>

namespace flock {

Secret::~Secret() {
  if (!value_.empty()) OPENSSL_cleanse(value_.data(), value_.size());
}

std::string to_string(const Secret& secret) { return secret.empty() ? "" : "****"; }
std::ostream& operator<<(std::ostream& out, const Secret& secret) {
  return out << to_string(secret);
}

bool constant_time_equal(std::string_view a, std::string_view b) noexcept {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace flock

// SPDX-License-Identifier: Apache-2.0
// Values at rest under keys that rotate: AES-256-GCM (NIST SP 800-38D).
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/secret.h"

namespace flock::crypto {

// A ring of keys: the current one seals, every one opens. Sealed text is
//   v1.<key id>.<base64url of nonce (12 bytes), ciphertext, tag (16 bytes)>
// so a rotation adds a key, makes it current, and seals old values anew at leisure: sealed_with()
// tells which. A random nonce is safe for 2^32 values a key.
class SealingKeys {
 public:
  // Ids are 1..32 of [a-z0-9-]; every key is 32 bytes. Throws Error{kInvalidArgument}.
  SealingKeys(std::map<std::string, Secret> keys, std::string current_id);
  // A folder of files `<id>.key`, each the base64 of 32 bytes (`openssl rand -base64 32`). The file
  // `current` names the sealing key; without it the last id in alphabetical order is. Other files
  // are passed over. Throws Error{kInvalidArgument} naming the file, never its content.
  static SealingKeys load(const std::string& directory);

  // `context` says what the value is and whose ("org/ID/variable/NAME"): it is authenticated, so a
  // value copied to another place does not open there.
  std::string seal(std::string_view plaintext, std::string_view context) const;
  // Throws Error{kCorrupt} that names the key id only.
  std::string open(std::string_view sealed, std::string_view context) const;

  const std::string& current_id() const noexcept { return current_id_; }
  // The key id of sealed text; throws Error{kCorrupt} when it is none.
  static std::string sealed_with(std::string_view sealed);

 private:
  std::map<std::string, Secret> keys_;
  std::string current_id_;
};

}  // namespace flock::crypto

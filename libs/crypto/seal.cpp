// SPDX-License-Identifier: Apache-2.0
#include "crypto/seal.h"

#include <algorithm>
#include <filesystem>

#include "base/bytes.h"
#include "base/error.h"
#include "base/files.h"
#include "base/random.h"
#include "crypto/openssl.h"

namespace flock::crypto {
namespace {

using CipherPtr = std::unique_ptr<EVP_CIPHER_CTX, Deleter<EVP_CIPHER_CTX_free>>;

constexpr std::string_view kVersion = "v1.";
constexpr std::size_t kKey = 32, kNonce = 12, kTag = 16;
constexpr std::size_t kPlaintextLimit = 16 * 1024 * 1024;

const unsigned char* bytes_of(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}
unsigned char* bytes_of(std::string& text) { return reinterpret_cast<unsigned char*>(text.data()); }

bool is_key_id(std::string_view id) {
  return !id.empty() && id.size() <= 32 && std::ranges::all_of(id, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
}

struct Sealed {
  std::string id, body;
};

Sealed split(std::string_view text) {
  const std::size_t dot =
      text.starts_with(kVersion) ? text.find('.', kVersion.size()) : std::string_view::npos;
  if (dot == std::string_view::npos) throw Error(Code::kCorrupt, "not a sealed value");
  Sealed sealed{std::string(text.substr(kVersion.size(), dot - kVersion.size())), ""};
  if (!is_key_id(sealed.id)) throw Error(Code::kCorrupt, "not a sealed value");
  auto body = from_base64url(text.substr(dot + 1));
  if (!body || body->size() < kNonce + kTag)
    throw Error(Code::kCorrupt, "a sealed value is damaged").with("key_id", sealed.id);
  sealed.body = std::move(*body);
  return sealed;
}

// The key id is authenticated with the context; it holds no dot, so the two cannot be moved apart.
std::string authenticated(const std::string& id, std::string_view context) {
  return std::string(kVersion) + id + "." + std::string(context);
}

}  // namespace

SealingKeys::SealingKeys(std::map<std::string, Secret> keys, std::string current_id)
    : keys_(std::move(keys)), current_id_(std::move(current_id)) {
  for (const auto& [id, key] : keys_) {
    if (!is_key_id(id))
      throw Error(Code::kInvalidArgument, "a sealing key's id must be 1 to 32 of a-z, 0-9 and -");
    if (key.reveal().size() != kKey)
      throw Error(Code::kInvalidArgument, "a sealing key must have 32 bytes").with("key_id", id);
  }
  if (!keys_.contains(current_id_))
    throw Error(Code::kInvalidArgument, "the current sealing key is missing")
        .with("key_id", current_id_);
}

SealingKeys SealingKeys::load(const std::string& directory) {
  std::map<std::string, Secret> keys;
  std::error_code failure;
  std::filesystem::directory_iterator files(directory, failure);
  if (failure)
    throw Error(Code::kInvalidArgument, "the folder of sealing keys cannot be read")
        .with("directory", directory);
  for (const auto& file : files) {
    if (file.path().extension() != ".key") continue;
    const std::string path = file.path().string();
    const auto key = from_base64(read_secret_file(path));
    if (!key || key->size() != kKey)
      throw Error(Code::kInvalidArgument, "a sealing key must be the base64 of 32 bytes")
          .with("file", path)
          .hint("openssl rand -base64 32");
    keys.emplace(file.path().stem().string(), Secret(*key));
  }
  if (keys.empty())
    throw Error(Code::kInvalidArgument, "no sealing key").with("directory", directory);
  const std::string current = directory + "/current";
  std::string id =
      std::filesystem::exists(current) ? read_secret_file(current) : keys.rbegin()->first;
  return {std::move(keys), std::move(id)};
}

std::string SealingKeys::seal(std::string_view plaintext, std::string_view context) const {
  if (plaintext.size() > kPlaintextLimit)
    throw Error(Code::kTooLarge, "a value to seal is over 16 MiB");
  const std::string nonce = random_bytes(kNonce), aad = authenticated(current_id_, context);
  std::string ciphertext(plaintext.size(), '\0'), tag(kTag, '\0');
  const CipherPtr cipher(EVP_CIPHER_CTX_new());
  int size = 0;
  check(EVP_EncryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr,
                           bytes_of(std::string_view(keys_.at(current_id_).reveal())),
                           bytes_of(std::string_view(nonce))) == 1 &&
            EVP_EncryptUpdate(cipher.get(), nullptr, &size, bytes_of(std::string_view(aad)),
                              static_cast<int>(aad.size())) == 1 &&
            EVP_EncryptUpdate(cipher.get(), bytes_of(ciphertext), &size, bytes_of(plaintext),
                              static_cast<int>(plaintext.size())) == 1 &&
            EVP_EncryptFinal_ex(cipher.get(), bytes_of(ciphertext) + size, &size) == 1 &&
            EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_GET_TAG, kTag, tag.data()) == 1,
        "seal");
  return std::string(kVersion) + current_id_ + "." + to_base64url(nonce + ciphertext + tag);
}

std::string SealingKeys::open(std::string_view text, std::string_view context) const {
  Sealed sealed = split(text);
  const auto key = keys_.find(sealed.id);
  if (key == keys_.end())
    throw Error(Code::kCorrupt, "the key of a sealed value is missing").with("key_id", sealed.id);
  const std::string_view body = sealed.body;
  const std::string_view ciphertext = body.substr(kNonce, body.size() - kNonce - kTag);
  std::string tag(body.substr(body.size() - kTag));
  const std::string aad = authenticated(sealed.id, context);
  std::string plaintext(ciphertext.size(), '\0');
  const CipherPtr cipher(EVP_CIPHER_CTX_new());
  int size = 0;
  const bool good =
      EVP_DecryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr,
                         bytes_of(std::string_view(key->second.reveal())), bytes_of(body)) == 1 &&
      EVP_DecryptUpdate(cipher.get(), nullptr, &size, bytes_of(std::string_view(aad)),
                        static_cast<int>(aad.size())) == 1 &&
      EVP_DecryptUpdate(cipher.get(), bytes_of(plaintext), &size, bytes_of(ciphertext),
                        static_cast<int>(ciphertext.size())) == 1 &&
      EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_SET_TAG, kTag, tag.data()) == 1 &&
      EVP_DecryptFinal_ex(cipher.get(), bytes_of(plaintext) + size, &size) == 1;
  ERR_clear_error();
  if (!good) {
    OPENSSL_cleanse(plaintext.data(), plaintext.size());
    throw Error(Code::kCorrupt, "a sealed value is damaged or belongs elsewhere")
        .with("key_id", sealed.id);
  }
  return plaintext;
}

std::string SealingKeys::sealed_with(std::string_view sealed) { return split(sealed).id; }

}  // namespace flock::crypto

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "async/task.h"
#include "base/secret.h"
#include "net/http_client.h"
#include "oci/reference.h"

namespace flock::oci {

// What a tag or digest stands for: for each platform ("linux/amd64", "linux/arm/v7") the digest of
// its image manifest.
struct Resolved {
  std::string digest;  // of the index or manifest that was named
  std::map<std::string, std::string> platforms;
};

// Speaks OCI distribution v2. Every manifest is checked against the digest it was asked by.
class RegistryClient {
 public:
  struct Options {
    // Which URL stands for a registry name, e.g. {"127.0.0.1:5000", "http://127.0.0.1:5000"};
    // others: https://NAME.
    std::map<std::string, std::string> urls;
    // A bearer token for `repository` at `registry`; "" to go by the registry's own challenge.
    // Optional.
    std::function<std::string(const std::string& registry, const std::string& repository)> token;
  };
  RegistryClient(net::HttpClient& http, Options options)
      : http_(http), options_(std::move(options)) {}

  // Throws kNotFound (no such image), kForbidden, kUnavailable (registry away), kProtocol (digest
  // does not fit, nonsense).
  Task<Resolved> resolve(Reference reference);
  // The compressed bytes of what an image manifest is made of, its config and layers, by digest.
  // Throws what resolve() throws.
  Task<std::map<std::string, std::int64_t>> blob_sizes(Reference manifest);

 private:
  struct Document {
    std::string body, digest;
  };
  Task<Document> manifest(Reference reference);
  Task<Document> fetch(const Reference& reference, const std::string& path, bool is_manifest);
  Task<net::Response> get(std::string url, net::Headers headers, std::string registry);
  Task<std::string> anonymous_token(std::string challenge, std::string registry);

  net::HttpClient& http_;
  Options options_;
};

}  // namespace flock::oci

// SPDX-License-Identifier: Apache-2.0
// Who a person is, by an access token of an OpenID provider (docs: contracts, 5).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "async/task.h"
#include "base/time.h"
#include "net/stream.h"

namespace flock::identity {

// What the token says. Roles are Flock's own and live in PostgreSQL.
struct Identity {
  std::string issuer, subject;  // together the person's lasting name
  std::string email;            // "" when the token has none
  bool email_verified = false;
  std::string name;
  TimePoint expires;
};

struct OidcOptions {
  std::string issuer;                    // as in the tokens' `iss`; https outside loopback
  std::vector<std::string> audiences;    // one of them must be in `aud`; at least one
  std::shared_ptr<net::TlsContext> tls;  // null: the system's roots
  Duration refresh_every{3'600'000};     // keys older than this are fetched again
  Duration retry_every{60'000};          // at most one fetch in this time, failed ones included
  Duration request_time{5'000};          // for each of the two requests of a fetch
  std::size_t cached_tokens = 10'000;
};

// An http issuer outside loopback would let anybody on the way sign in: Error{kInvalidArgument}.
// Also refused: a query, a fragment, a user.
void check_issuer(const std::string& issuer);

// Verifies tokens against one provider. Used on its executor only; any number of calls may run at
// once and share one fetch of the keys. While the provider is away, keys that are known go on
// working.
class OidcVerifier {
 public:
  // Throws Error{kInvalidArgument}; nothing is fetched yet.
  OidcVerifier(Executor executor, OidcOptions options);
  ~OidcVerifier();  // after stop(), or when the loop never runs again
  OidcVerifier(const OidcVerifier&) = delete;
  OidcVerifier& operator=(const OidcVerifier&) = delete;

  // Throws Error{kUnauthenticated} naming the reason, never the token; Error{kUnavailable} when the
  // provider is away and no key that could verify the token is known.
  Task<Identity> verify(std::string token, TimePoint now);

  // Ends a fetch that runs; await it before the verifier goes.
  Task<void> stop();

  // For metrics and tests.
  struct Counters {
    std::size_t fetches = 0, failed_fetches = 0, cache_hits = 0, cached = 0;
  };
  Counters counters() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace flock::identity

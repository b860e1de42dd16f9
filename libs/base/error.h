// SPDX-License-Identifier: Apache-2.0
// The one error channel of Flock: a function returns its answer or throws flock::Error.
#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace flock {

// Closed on purpose: every edge (HTTP status, exit code, metric label) maps all of them.
enum class Code {
  kInvalidArgument,     // the caller's input is malformed
  kUnprocessable,       // well-formed, but it cannot be honoured
  kUnauthenticated,     // who are you?
  kForbidden,           // known, but not allowed
  kNotFound,            // no such object, or not yours to see
  kConflict,            // the state of the object forbids it
  kPreconditionFailed,  // If-Match and the like
  kTooLarge,            // over a size, depth or count limit
  kRateLimited,
  kTimeout,      // a deadline passed
  kCancelled,    // somebody asked to stop; never used for a timeout
  kUnavailable,  // a peer is away; trying again later can help
  kProtocol,     // a peer broke its protocol
  kCorrupt,      // stored data is damaged
  kUnsupported,  // a known thing that Flock does not do
  kInternal,     // our own fault
};

// The stable machine name, e.g. "not_found"; used as `code` in problem documents and as metric
// label.
std::string_view to_string(Code code) noexcept;

// One fault in an input document. `pointer` is an RFC 6901 JSON pointer ("/services/web/ports/0").
struct Problem {
  std::string pointer;
  std::string code;    // stable, for programs: "unknown_field", "too_long", ...
  std::string detail;  // for people: what is wrong and what to do
};

class Error final : public std::exception {
 public:
  Error(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  // Context for the administrator, e.g. Error(...).with("device", id). Never a secret.
  Error with(std::string key, std::string value) &&;
  Error& with(std::string key, std::string value) &;
  // What the reader can do about it: one sentence, ideally a command.
  Error hint(std::string text) &&;
  // Validation finds everything at once; each fault with its place.
  Error problems(std::vector<Problem> found) &&;

  Code code() const noexcept { return code_; }
  const std::string& message() const noexcept { return message_; }
  const std::string& hint() const noexcept { return hint_; }
  const std::vector<Problem>& problems() const noexcept { return problems_; }
  const std::vector<std::pair<std::string, std::string>>& context() const noexcept {
    return context_;
  }

  // The message alone; describe() adds context and problems in one line for logs and terminals.
  const char* what() const noexcept override { return message_.c_str(); }
  std::string describe() const;

 private:
  Code code_;
  std::string message_;
  std::string hint_;
  std::vector<std::pair<std::string, std::string>> context_;
  std::vector<Problem> problems_;
};

[[noreturn]] void assertion_failed(const char* expression, const char* file, int line) noexcept;

}  // namespace flock

// For what cannot happen: logs the place and aborts. Never for input or the network.
#define FLOCK_ASSERT(condition) \
  ((condition) ? void(0) : ::flock::assertion_failed(#condition, __FILE__, __LINE__))

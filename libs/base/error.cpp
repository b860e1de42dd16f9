// SPDX-License-Identifier: Apache-2.0
#include "base/error.h"

#include <cstdio>
#include <cstdlib>

namespace flock {

std::string_view to_string(Code code) noexcept {
  switch (code) {
    case Code::kInvalidArgument:
      return "invalid_argument";
    case Code::kUnprocessable:
      return "unprocessable";
    case Code::kUnauthenticated:
      return "unauthenticated";
    case Code::kForbidden:
      return "forbidden";
    case Code::kNotFound:
      return "not_found";
    case Code::kConflict:
      return "conflict";
    case Code::kPreconditionFailed:
      return "precondition_failed";
    case Code::kTooLarge:
      return "too_large";
    case Code::kRateLimited:
      return "rate_limited";
    case Code::kTimeout:
      return "timeout";
    case Code::kCancelled:
      return "cancelled";
    case Code::kUnavailable:
      return "unavailable";
    case Code::kProtocol:
      return "protocol";
    case Code::kCorrupt:
      return "corrupt";
    case Code::kUnsupported:
      return "unsupported";
    case Code::kInternal:
      return "internal";
  }
  return "internal";
}

Error Error::with(std::string key, std::string value) && {
  context_.emplace_back(std::move(key), std::move(value));
  return std::move(*this);
}

Error& Error::with(std::string key, std::string value) & {
  context_.emplace_back(std::move(key), std::move(value));
  return *this;
}

Error Error::hint(std::string text) && {
  hint_ = std::move(text);
  return std::move(*this);
}

Error Error::problems(std::vector<Problem> found) && {
  problems_ = std::move(found);
  return std::move(*this);
}

std::string Error::describe() const {
  std::string text = message_;
  const char* separator = " (";
  for (const auto& [key, value] : context_) {
    text += separator + key + "=" + value;
    separator = ", ";
  }
  if (!context_.empty()) text += ")";
  for (const Problem& problem : problems_) {
    text += "; " + problem.pointer + ": " + problem.detail;
  }
  return text;
}

void assertion_failed(const char* expression, const char* file, int line) noexcept {
  std::fprintf(stderr, "assertion failed: %s at %s:%d\n", expression, file, line);
  std::abort();
}

}  // namespace flock

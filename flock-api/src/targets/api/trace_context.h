// SPDX-License-Identifier: Apache-2.0
// The trace that a request belongs to (W3C Trace Context).
#pragma once

#include <string>

#include "net/http.h"

namespace flock::targets::api {

// The trace id of the request's `traceparent`: 32 lower-case hex digits. "" without one, and for
// one that is not valid, which the standard wants ignored.
std::string trace_id(const net::Request& request);

}  // namespace flock::targets::api

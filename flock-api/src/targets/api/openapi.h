// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace flock::targets::api {

// flock-api/openapi/openapi.yaml as JSON text.
std::string openapi_json();

}  // namespace flock::targets::api

// SPDX-License-Identifier: Apache-2.0
// The OpenAPI document as the tests read it: its operations, and what in a request or an answer is
// not as it says.
#pragma once

#include <boost/json.hpp>
#include <string>
#include <vector>

#include "net/http.h"

namespace flock::targets::itest {

namespace bj = boost::json;

const bj::value& document();
// Follows a `$ref`.
const bj::value& resolve(const bj::value& value);

struct Operation {
  std::string id, method, pattern;
  const bj::object* described = nullptr;
  std::vector<const bj::object*> parameters;  // of the path and of the operation
  const bj::object* body = nullptr;           // its media type: schema and example
  bool body_required = false;
};
const std::vector<Operation>& operations();

// What in `value` is not as `schema` says; empty when all is well. A property that the document
// does not name is a fault: it is meant to be whole.
std::vector<std::string> faults_of(const bj::value& schema, const bj::value& value);
// The same for a body that is sent: in it null and absent mean the same.
std::vector<std::string> request_faults(const bj::value& schema, const bj::value& value);
// By the schema's name.
std::vector<std::string> schema_faults(const std::string& schema, const bj::value& value);
// The status, the media type and the body of an answer to a request for `target`.
std::vector<std::string> answer_faults(const std::string& method, const std::string& target,
                                       const net::Response& response);

}  // namespace flock::targets::itest

// SPDX-License-Identifier: Apache-2.0
// ?fields=id,labels.site: what of a resource, or of each item of a list, is answered.
#pragma once

#include <boost/json/fwd.hpp>
#include <map>
#include <string>
#include <vector>

#include "net/http.h"

namespace flock::targets::api {

// The members that a resource may have, by its schema in the OpenAPI document.
struct FieldTree {
  std::map<std::string, FieldTree, std::less<>> members;
  bool open = false;  // may have others too, such as labels
};
// Of what the operation answers with 200; open when that is no JSON object.
FieldTree fields_of(const boost::json::value& document, const boost::json::value& operation);

// The paths that the request names, none for everything. Throws kInvalidArgument for one that
// `known` does not have, naming those it has, and for too many or too deep ones.
std::vector<std::string> read_fields(const net::Request& request, const FieldTree& known);
// Leaves of a 200 answer what `paths` name; a path takes all that is below it, and goes through
// lists. A key may hold dots: labels.topology.io/zone.
void keep_fields(const std::vector<std::string>& paths, net::Response& response);

}  // namespace flock::targets::api

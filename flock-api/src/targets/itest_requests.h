// SPDX-License-Identifier: Apache-2.0
// Requests made from the OpenAPI document by chance: such as it allows, and such as break it in one
// place.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "targets/itest_document.h"

namespace flock::targets::itest {

class Chance {
 public:
  explicit Chance(std::uint64_t seed) : engine_(seed) {}
  std::size_t below(std::size_t limit) { return engine_() % limit; }
  bool one_in(std::size_t times) { return below(times) == 0; }
  template <class List>
  const auto& of(const List& list) {
    return list[below(std::size(list))];
  }
  std::string letters(std::size_t length);
  std::mt19937_64& engine() { return engine_; }

 private:
  std::mt19937_64 engine_;
};

// One request to be tried. Path parameters that are not named get what is there.
struct Trial {
  const Operation* operation = nullptr;
  std::string what;  // "the body's /name: an empty string"
  std::map<std::string, std::string> path;
  std::vector<std::pair<std::string, std::string>> query;  // escaped as it is sent
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::string pointer;  // the one place that is not as the document says; empty: none, or many
  std::string method;   // another than the operation's
  bool as_documented = false;
  int caller = 0;  // 0: the owner
};

std::string percent_encode(std::string_view text);

class Requests {
 public:
  // `known`: values for members of these names, which no schema can tell.
  Requests(Chance& chance, std::map<std::string, std::vector<bj::value>> known)
      : chance_(chance), known_(std::move(known)) {}

  bj::value sample(const bj::value& schema, const std::string& name, bool whole);
  Trial as_documented(const Operation& operation);
  // Every parameter and every place of the body, each broken in every way.
  std::vector<Trial> broken(const Operation& operation);

  // Bodies that hang together by more than a schema, by operationId.
  std::map<std::string, std::vector<bj::object>> bodies;

 private:
  std::string text(const bj::object& schema);
  bj::object object(const bj::object& schema, bool whole);
  bj::value body_for(const Operation& operation, bool whole);
  void break_parameters(const Operation& operation, std::vector<Trial>& out);
  void break_body(const Operation& operation, std::vector<Trial>& out);
  void break_members(const Trial& base, const bj::value& body, const std::string& at,
                     const bj::value& place, std::vector<Trial>& out);
  void break_whole_body(const Trial& base, std::vector<Trial>& out);

  Chance& chance_;
  std::map<std::string, std::vector<bj::value>> known_;
};

}  // namespace flock::targets::itest

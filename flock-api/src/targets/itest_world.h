// SPDX-License-Identifier: Apache-2.0
// An organization with one of everything, and another of whatever a test has used up.
#pragma once

#include <map>
#include <string>

#include "targets/itest_requests.h"
#include "targets/itest_stack.h"

namespace flock::targets::itest {

class World {
 public:
  World(Backend& backend, Api& api, Chance& chance)
      : backend_(backend), api_(api), chance_(chance) {}
  Task<void> open();

  // Values for members of a body or a query by their name.
  std::map<std::string, std::vector<bj::value>> known() const;
  // Bodies that hang together, by operationId.
  std::map<std::string, std::vector<bj::object>> bodies() const;
  const std::string& fleet() const { return fleet_; }

  // The operation's path with what is there in its holes, unless `given` says otherwise.
  Task<std::string> path_for(const Operation& operation,
                             const std::map<std::string, std::string>& given);
  // What the operation's path named has been changed.
  void used(const Operation& operation);
  // A line for each table: how many rows the organization has in it, and a hash over them.
  Task<std::string> rows();

 private:
  Task<bj::value> post(std::string path, bj::object body);
  Task<std::string> make(std::string resource, const std::string& operation);
  Task<std::string> make_device();
  Task<std::string> rollout_for(std::string operation);
  Task<std::string> make_member();
  Task<std::string> make_draft();
  Task<std::string> make_request();
  Task<void> roll_out();

  Backend& backend_;
  Api& api_;
  Chance& chance_;
  std::string org_, fleet_, device_, release_, deployment_, rollout_, operation_;
  std::string secret_, guarded_;  // of provisioning keys
  crypto::Key device_key_ = crypto::Key::generate(crypto::Key::Kind::kP256);
  std::map<std::string, std::string> there_;  // by place_of()
  std::string count_rows_;                    // SQL
};

}  // namespace flock::targets::itest

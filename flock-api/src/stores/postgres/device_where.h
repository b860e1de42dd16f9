// SPDX-License-Identifier: Apache-2.0
// Private: a statement about some of an organization's devices, put together condition by
// condition. What a caller wrote becomes a parameter, never text.
#pragma once

#include <string>
#include <vector>

#include "domain/filter.h"
#include "stores/postgres/database.h"

namespace flock::postgres {

class DeviceWhere {
 public:
  explicit DeviceWhere(const OrgId& org) { params_.text(org.text()); }  // $1

  // "WHERE ...": devices `d` that are there and match.
  std::string where(const domain::Filter& filter, TimePoint now);
  // The filter alone, as a condition; where() is what indexes serve better.
  std::string condition(const domain::Filter& filter, TimePoint now);
  void add(std::string& out, domain::Sql condition);
  // The placeholder of a value.
  std::string bind(std::string value);
  std::string list(const std::vector<std::string>& values);
  int next() const { return next_; }
  Params take() { return std::move(params_); }

 private:
  std::string look_up(const domain::Term& term);

  Params params_;
  int next_ = 2;
};

}  // namespace flock::postgres

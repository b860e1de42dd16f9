// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/json/fwd.hpp>
#include <string>

#include "output.h"

namespace flock::cli {

// What a plan, deployment or rollout brings: "release 12", "a host command", "a host command, then
// release 12".
std::string work_of(const boost::json::value& item);

// A plan as one reads it before he says yes; as data in the other formats. Returns the exit code: 5
// when the deployment would be refused.
int show_plan(const Output& output, const boost::json::value& plan);
// What show_plan() writes for people.
std::string plan_text(const Output& output, const boost::json::value& plan);

}  // namespace flock::cli

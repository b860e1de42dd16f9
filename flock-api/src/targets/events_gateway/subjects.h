// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "domain/customer_events.h"
#include "stores/postgres/database.h"

namespace flock::targets::events_gateway {

// By organization and id. One that is not there does not exist in that organization.
using Subjects = std::map<std::pair<std::string, std::string>, domain::EventSubject>;

// What all these events are about, by one question for each kind of thing.
Task<Subjects> find_subjects(postgres::Database& db,
                             const std::vector<domain::InternalEvent>& events);

}  // namespace flock::targets::events_gateway

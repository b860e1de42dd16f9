// SPDX-License-Identifier: Apache-2.0
// Query parameters of live data: lists of names, and times.
#pragma once

#include "stores/time_series/time_series.h"
#include "targets/api/call.h"

namespace flock::targets::api {

inline constexpr std::size_t kMostNames = 100;

// "a,b", or the parameter several times. At most `most`; a fault names the parameter.
std::vector<std::string> read_list(const net::Request& request, std::string_view name,
                                   std::size_t most);
// RFC 3339, or relative to now as the filter grammar has it: -1h.
TimePoint read_instant(const net::Request& request, std::string_view name, TimePoint now,
                       TimePoint fallback);
struct TimeRange {
  TimePoint from, to;
};
// ?from= and ?to=; `span` before now and now when they are absent. Throws when it is empty or
// longer than `most`.
TimeRange read_range(const net::Request& request, Duration span, Duration most);
Error parameter_fault(std::string_view name, std::string detail);

// The ids of devices named by id or name that the caller sees; kNotFound names the first that is
// not there.
Task<std::vector<std::string>> find_device_ids(Call& call, std::vector<std::string> names);

// Whose rows of the time series: ?fleet=, ?device= and ?service=, within what the caller sees. Rows
// belong to the fleet that the device was in when it sent them.
Task<stores::Subject> read_subject(Call& call);
// Only rows of fleets that the caller sees, where the subject names none.
void limit_to_caller(const Call& call, stores::Subject& subject);
// The names of devices by id; of those that the caller sees.
Task<std::unordered_map<std::string, std::string>> device_names(Call& call,
                                                                std::vector<std::string> ids);
// Whole numbers without a fraction.
bj::value number_json(double value);

}  // namespace flock::targets::api

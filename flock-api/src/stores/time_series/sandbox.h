// SPDX-License-Identifier: Apache-2.0
// Private to clickhouse.cpp: what an operator may ask ClickHouse himself (docs/rollouts.md).
//
// A query is read token by token and may hold nothing but what is known here: one SELECT with
// subqueries and joins, columns and functions out of lists, plain literals, and names that it gave
// itself. Each table that it names becomes a subquery that holds the rows of one organization in
// one window, and nothing else in it can be taken for a table. ClickHouse then runs it as a
// subquery of ours, read-only and within limits.
#pragma once

#include <string>

#include "stores/time_series/time_series.h"

namespace flock::stores::clickhouse {

inline constexpr std::size_t kLongestQuery = 8192;

// The statement to send, in the database of the time series. Throws Error{kInvalidArgument} that
// says what cannot be, and where.
std::string sandboxed(const OperatorQuery& query, const std::string& database);
// The settings under which it runs, as parameters of its request; `readonly` comes last, for after
// it nothing can be set.
std::string sandbox_settings();

}  // namespace flock::stores::clickhouse

// SPDX-License-Identifier: Apache-2.0
// The rows as clickhouse_statements.h inserts them.
#pragma once

#include "stores/time_series/row_binary.h"
#include "stores/time_series/rules.h"

namespace flock::stores::clickhouse {

inline RowWriter& put_origin(RowWriter& out, const Origin& origin) {
  return out.text(origin.org).text(origin.fleet).text(origin.device);
}

inline void put(RowWriter& out, const MetricRow& row, std::int64_t now_ms) {
  put_origin(out, row.origin).text(row.origin.service).text(row.name);
  out.number(filed_day(row.at_ms, now_ms)).number(row.at_ms).number(row.value);
}

inline void put(RowWriter& out, const LogRow& row, std::int64_t now_ms) {
  put_origin(out, row.origin).text(row.origin.service);
  out.number(filed_day(row.at_ms, now_ms)).number(row.at_ms / kHourMs);
  out.number(row.epoch).number(row.number).number(row.at_ms).number(row.received_ms);
  out.number(static_cast<std::uint8_t>(row.source)).number(static_cast<std::uint8_t>(row.level));
  out.number(static_cast<std::uint8_t>(row.gap)).number(static_cast<std::uint8_t>(row.truncated));
  out.number(row.count).text(row.text);
}

inline void put(RowWriter& out, const ConnectivityRow& row, std::int64_t now_ms) {
  put_origin(out, row.origin).number(filed_day(row.at_ms, now_ms)).number(row.at_ms);
  out.number(static_cast<std::uint8_t>(row.online)).text(row.reason);
}

inline void put(RowWriter& out, const UpdateRow& row, std::int64_t now_ms) {
  put_origin(out, row.origin).text(row.rollout).text(row.release);
  out.number(filed_day(row.at_ms, now_ms)).number(row.at_ms);
  out.text(row.phase).text(row.error_code).text(row.detail);
}

}  // namespace flock::stores::clickhouse

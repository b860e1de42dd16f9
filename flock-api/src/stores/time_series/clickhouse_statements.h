// SPDX-License-Identifier: Apache-2.0
// Private to clickhouse.cpp: every statement. {places} are filled by sql.h. What Debian's 18.16
// knows is the base; parts that newer servers know besides have places of their own: {low}, {time},
// {value}, {lines}, {keep}.
#pragma once

#include "stores/time_series/sql.h"

namespace flock::stores::clickhouse {

inline constexpr Sql kVersion = "SELECT version() FORMAT RowBinary";
inline constexpr Sql kCreateDatabase = "CREATE DATABASE IF NOT EXISTS {database}";

// `day`: filed_day(). Of rows with the same sorting key one is kept when parts are merged; until
// then questions count them once. ignore() is always 0: it makes the server note for each part
// which times lie in it, so that who asks for the last minutes, or follows a log, reads new parts
// only.
inline constexpr Sql kCreateMetrics =
    "CREATE TABLE IF NOT EXISTS metrics (org {low}, fleet {low}, device String, service {low},"
    " name {low}, day UInt32, at_ms Int64 {time}, value Float64 {value})"
    " ENGINE = ReplacingMergeTree PARTITION BY (day, ignore(at_ms))"
    " ORDER BY (org, name, device, service, at_ms) {keep}";
// The hour comes first, so that one device's lines of a day and all lines of an hour are both near
// together.
inline constexpr Sql kCreateLogs =
    "CREATE TABLE IF NOT EXISTS logs (org {low}, fleet {low}, device String, service {low},"
    " day UInt32, hour Int64 {time}, epoch Int64 {time}, number Int64 {time}, at_ms Int64 {time},"
    " received_ms Int64 {time}, source UInt8, level UInt8, gap UInt8, truncated UInt8, count Int64,"
    " text String {lines})"
    " ENGINE = ReplacingMergeTree PARTITION BY (day, ignore(at_ms, received_ms))"
    " ORDER BY (org, hour, device, service, at_ms, epoch, number, gap) {keep}";
inline constexpr Sql kCreateConnectivity =
    "CREATE TABLE IF NOT EXISTS connectivity (org {low}, fleet {low}, device String, day UInt32,"
    " at_ms Int64 {time}, online UInt8, reason String)"
    " ENGINE = ReplacingMergeTree PARTITION BY (day, ignore(at_ms))"
    " ORDER BY (org, device, at_ms, online) {keep}";
inline constexpr Sql kCreateUpdates =
    "CREATE TABLE IF NOT EXISTS updates (org {low}, fleet {low}, device String, rollout String,"
    " release String, day UInt32, at_ms Int64 {time}, phase {low}, error_code {low}, detail String)"
    " ENGINE = ReplacingMergeTree PARTITION BY (day, ignore(at_ms))"
    " ORDER BY (org, device, at_ms, rollout, phase) {keep}";
// The limit of a TTL is the longest time that may be configured: retention itself is services/
// retention.h on every version.
inline constexpr Sql kModernKeep =
    "TTL toDate(toUInt16(day % 100000)) + INTERVAL 400 DAY"
    " SETTINGS ttl_only_drop_parts = 1, fsync_after_insert = 1, fsync_part_directory = 1";

// Columns in the order in which row_encoder.h writes them.
inline constexpr Sql kInsertMetrics =
    "INSERT INTO metrics (org, fleet, device, service, name, day, at_ms, value) FORMAT RowBinary";
inline constexpr Sql kInsertLogs =
    "INSERT INTO logs (org, fleet, device, service, day, hour, epoch, number, at_ms, received_ms,"
    " source, level, gap, truncated, count, text) FORMAT RowBinary";
inline constexpr Sql kInsertConnectivity =
    "INSERT INTO connectivity (org, fleet, device, day, at_ms, online, reason) FORMAT RowBinary";
inline constexpr Sql kInsertUpdates =
    "INSERT INTO updates (org, fleet, device, rollout, release, day, at_ms, phase, error_code,"
    " detail) FORMAT RowBinary";

// What follows WHERE, in this order. 100000: kStrayDays.
inline constexpr Sql kOfOrg = " org = {org}";
inline constexpr Sql kInTime =
    " AND (day BETWEEN {first_day} AND {last_day} OR day >= 100000)"
    " AND at_ms >= {from} AND at_ms < {to}";
inline constexpr Sql kInFleets = " AND fleet IN ({fleets})";
inline constexpr Sql kInDevices = " AND device IN ({devices})";
inline constexpr Sql kInServices = " AND service IN ({services})";
inline constexpr Sql kInNames = " AND name IN ({names})";
inline constexpr Sql kInHours = " AND hour BETWEEN {first_hour} AND {last_hour}";
inline constexpr Sql kOfLevel = " AND (gap != 0 OR level >= {level})";
inline constexpr Sql kContaining = " AND (gap != 0 OR position(text, {contains}) > 0)";
inline constexpr Sql kAfter =
    " AND (at_ms, device, service, epoch, number, gap) > ({at}, {device}, {service}, {epoch},"
    " {number}, {gap})";
inline constexpr Sql kBefore =
    " AND (at_ms, device, service, epoch, number, gap) < ({at}, {device}, {service}, {epoch},"
    " {number}, {gap})";
inline constexpr Sql kReceived = " AND received_ms >= {received}";

inline constexpr Sql kLatest =
    "SELECT device, service, name, max(at_ms), argMax(value, at_ms) FROM metrics WHERE";
inline constexpr Sql kLatestEnd =
    " GROUP BY device, service, name ORDER BY device, service, name LIMIT {limit}"
    " FORMAT RowBinary";

inline constexpr Sql kRange =
    "SELECT device, service, name, toInt64(intDiv(at_ms, {step}) * {step}) AS bucket, min(v), "
    "max(v),"
    " avg(v), toInt64(count()) FROM (SELECT device, service, name, at_ms, any(value) AS v"
    " FROM metrics WHERE";
inline constexpr Sql kRangeEnd =
    " GROUP BY device, service, name, at_ms) GROUP BY device, service, name, bucket"
    " ORDER BY device, service, name, bucket LIMIT {limit} FORMAT RowBinary";

inline constexpr Sql kSummary =
    "SELECT toInt64(uniqExact(device)), avg(v), max(v), quantileExact(0.95)(v)"
    " FROM (SELECT device, at_ms, any(value) AS v FROM metrics WHERE";
inline constexpr Sql kOfMetric = " AND name = {name} AND service = {service}";
// transform() looks each device up in a table that is made once for the question.
inline constexpr Sql kSinces =
    " AND toUInt64(at_ms) >= transform(device, [{devices}], [{sinces}], toUInt64(0))";
inline constexpr Sql kSummaryEnd = " GROUP BY device, at_ms) FORMAT RowBinary";

inline constexpr Sql kLogs =
    "SELECT fleet, device, service, epoch, number, at_ms, received_ms, source, level, gap, "
    "truncated,"
    " count, text FROM logs WHERE";
inline constexpr Sql kOldestFirst =
    " ORDER BY at_ms, device, service, epoch, number, gap"
    " LIMIT 1 BY at_ms, device, service, epoch, number, gap LIMIT {limit} FORMAT RowBinary";
inline constexpr Sql kNewestFirst =
    " ORDER BY at_ms DESC, device DESC, service DESC, epoch DESC, number DESC, gap DESC"
    " LIMIT 1 BY at_ms, device, service, epoch, number, gap LIMIT {limit} FORMAT RowBinary";
inline constexpr Sql kByArrival =
    " ORDER BY received_ms, device, service, epoch, number, gap"
    " LIMIT 1 BY device, service, epoch, number, gap LIMIT {limit} FORMAT RowBinary";

inline constexpr Sql kConnectivity =
    "SELECT fleet, device, at_ms, online, reason FROM connectivity WHERE";
inline constexpr Sql kConnectivityEnd =
    " ORDER BY at_ms DESC, device DESC, online DESC LIMIT 1 BY device, at_ms, online LIMIT {limit}"
    " FORMAT RowBinary";
inline constexpr Sql kUpdates =
    "SELECT fleet, device, rollout, release, at_ms, phase, error_code, detail FROM updates WHERE";
inline constexpr Sql kUpdatesEnd =
    " ORDER BY at_ms DESC, device DESC, rollout DESC, phase DESC"
    " LIMIT 1 BY device, at_ms, rollout, phase LIMIT {limit} FORMAT RowBinary";

// Of all organizations whole partitions go; of some, their rows in them.
inline constexpr Sql kOldPartitions =
    "SELECT DISTINCT partition_id FROM system.parts WHERE active AND database = {database}"
    " AND table = {table} AND toUInt32OrZero(splitByChar('-', partition_id)[1]) % 100000 < {before}"
    " FORMAT RowBinary";
inline constexpr Sql kDropPartition = "ALTER TABLE {name} DROP PARTITION ID {partition}";
// A deletion rewrites what it touches: none is asked for without need, nor twice.
inline constexpr Sql kAnyOld =
    "SELECT toUInt8(1) FROM {name} WHERE org IN ({orgs})"
    " AND (day < {before} OR (day >= 100000 AND day < 100000 + {before})) LIMIT 1 FORMAT RowBinary";
inline constexpr Sql kDeleting =
    "SELECT toUInt8(1) FROM system.mutations WHERE database = {database} AND table = {table}"
    " AND NOT is_done LIMIT 1 FORMAT RowBinary";
inline constexpr Sql kDelete =
    "ALTER TABLE {name} DELETE WHERE org IN ({orgs})"
    " AND (day < {before} OR (day >= 100000 AND day < 100000 + {before}))";

}  // namespace flock::stores::clickhouse

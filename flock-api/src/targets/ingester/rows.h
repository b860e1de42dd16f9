// SPDX-License-Identifier: Apache-2.0
// What devices send, as rows of the time series.
#pragma once

#include <optional>
#include <string>

#include "flock/device/v1/device.pb.h"
#include "flock/internal/v1/internal.pb.h"
#include "stores/time_series/time_series.h"

namespace flock::targets::ingester {

// Whose message it is, and when it came.
struct Source {
  std::string org, fleet, device;
  std::int64_t received_ms = 0;
};

void append(stores::Rows& rows, const Source& source, const device::v1::TelemetryBatch& batch);
void append(stores::Rows& rows, const Source& source, const device::v1::LogBatch& batch);
void append(stores::Rows& rows, const Source& source, const internal::v1::DevicePresence& presence);
void append(stores::Rows& rows, const Source& source, const device::v1::ReportedState& state);

std::size_t rows_of(const device::v1::TelemetryBatch& batch);
std::size_t rows_of(const device::v1::LogBatch& batch);

// A hash of what of a report is a step of its update.
std::uint64_t step_of(const device::v1::ReportedState& state);

// The same batch with nothing but gaps where it had lines: what is left when it is thrown away.
device::v1::LogBatch only_gaps(const device::v1::LogBatch& batch, device::v1::LogGap::Reason why);

// Adds the gaps of `more`, which has no lines; stretches that touch become one.
void merge_gaps(device::v1::LogBatch& gaps, const device::v1::LogBatch& more);

internal::v1::SpooledMessage spooled(const Source& source, internal::v1::SpooledMessage::Kind kind,
                                     std::string payload);
// The rows of a spooled message; false when it cannot be read.
bool append(stores::Rows& rows, const internal::v1::SpooledMessage& message);

}  // namespace flock::targets::ingester

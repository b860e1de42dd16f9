// SPDX-License-Identifier: Apache-2.0
#include "targets/ingester/rows.h"

#include <gtest/gtest.h>

namespace flock::targets::ingester {
namespace {

using device::v1::LogBatch;
using device::v1::LogGap;
using internal::v1::SpooledMessage;

const Source kSource{"org", "fleet", "device", 1'780'000'000'000};

LogBatch lines(std::int64_t first, int count) {
  LogBatch batch;
  auto* stream = batch.add_streams();
  stream->set_service("web");
  stream->set_epoch(3);
  for (int i = 0; i < count; ++i) {
    auto* line = stream->add_lines();
    line->set_number(first + i);
    line->set_at_ms(kSource.received_ms + first + i);
    line->set_text("text");
  }
  return batch;
}

TEST(Rows, OfASpooledMessageAreThoseOfTheMessage) {
  stores::Rows direct, spooled_rows;
  append(direct, kSource, lines(1, 3));
  EXPECT_TRUE(append(spooled_rows,
                     spooled(kSource, SpooledMessage::LOGS, lines(1, 3).SerializeAsString())));
  ASSERT_EQ(spooled_rows.logs.size(), 3u);
  EXPECT_EQ(spooled_rows.logs[2].number, direct.logs[2].number);
  EXPECT_EQ(spooled_rows.logs[2].at_ms, kSource.received_ms + 3);
  EXPECT_EQ(spooled_rows.logs[2].origin.fleet, "fleet");
  EXPECT_FALSE(append(spooled_rows, spooled(kSource, SpooledMessage::LOGS, "\xff")));
  EXPECT_FALSE(append(spooled_rows, spooled(kSource, SpooledMessage::KIND_UNSPECIFIED, "")));
}

TEST(Rows, LinesThatAreThrownAwayLeaveTheSmallestGaps) {
  LogBatch gaps = only_gaps(lines(1, 10), LogGap::SPOOL_FULL);
  merge_gaps(gaps, only_gaps(lines(11, 5), LogGap::SPOOL_FULL));
  merge_gaps(gaps, only_gaps(lines(20, 1), LogGap::SPOOL_FULL));
  ASSERT_EQ(gaps.streams_size(), 1);
  ASSERT_EQ(gaps.streams(0).gaps_size(), 2);
  EXPECT_EQ(gaps.streams(0).lines_size(), 0);
  EXPECT_EQ(gaps.streams(0).gaps(0).first_number(), 1);
  EXPECT_EQ(gaps.streams(0).gaps(0).count(), 15);
  EXPECT_EQ(gaps.streams(0).gaps(1).count(), 1);
  // Gaps that were there already stay.
  LogBatch again = only_gaps(gaps, LogGap::RATE_LIMITED);
  EXPECT_EQ(again.streams(0).gaps_size(), 2);
  EXPECT_EQ(again.streams(0).gaps(0).reason(), LogGap::SPOOL_FULL);
  stores::Rows rows;
  append(rows, kSource, gaps);
  ASSERT_EQ(rows.logs.size(), 2u);
  EXPECT_EQ(rows.logs[0].gap, static_cast<int>(LogGap::SPOOL_FULL));
  EXPECT_EQ(rows.logs[0].count, 15);
}

TEST(Rows, OnlyStepsOfAnUpdateAreSteps) {
  device::v1::ReportedState state;
  state.set_desired_version(4);
  state.set_phase(device::v1::ReportedState::DOWNLOADING);
  const std::uint64_t step = step_of(state);
  state.set_seq(9);
  state.add_services()->set_pull_percent(50);
  EXPECT_EQ(step_of(state), step);
  state.set_phase(device::v1::ReportedState::STARTING);
  EXPECT_NE(step_of(state), step);
}

}  // namespace
}  // namespace flock::targets::ingester

// SPDX-License-Identifier: Apache-2.0
#include "link/lost_log.h"

#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"

namespace flock::agent {
namespace {

using device::v1::LogBatch;
using device::v1::LogGap;
using device::v1::LogStream;

// Numbers and times that a stream's lines and gaps cover; a batch leaves no number out.
LogGap cover(const LogStream& stream) {
  LogGap all;
  const auto add = [&](std::int64_t number, std::int64_t count, std::int64_t from,
                       std::int64_t to) {
    const bool first = all.count() == 0;
    const std::int64_t begin = first ? number : std::min(all.first_number(), number);
    const std::int64_t end = std::max(first ? 0 : all.first_number() + all.count(), number + count);
    all.set_first_number(begin);
    all.set_count(end - begin);
    all.set_from_ms(first ? from : std::min(all.from_ms(), from));
    all.set_to_ms(std::max(all.to_ms(), to));
  };
  for (const auto& line : stream.lines()) add(line.number(), 1, line.at_ms(), line.at_ms());
  for (const auto& gap : stream.gaps())
    add(gap.first_number(), gap.count(), gap.from_ms(), gap.to_ms());
  all.set_reason(LogGap::SPOOL_FULL);
  return all;
}

}  // namespace

void LostLog::load() {
  try {
    if (const auto counts = read_file(directory_ + "/lost")) {
      std::istringstream in(*counts);
      in >> counts_.telemetry_points >> counts_.log_lines >> counts_.events;
    }
    if (const auto gaps = read_file(directory_ + "/lost-lines"); gaps && !gaps->empty()) {
      if (!gaps_.ParseFromString(*gaps)) throw Error(Code::kCorrupt, "not what was written");
    }
  } catch (const Error& error) {
    log::warn("what was lost before cannot be read", error, {{"folder", directory_}});
    gaps_.Clear();
  }
}

void LostLog::save() {
  if (!changed_) return;
  try {
    std::ostringstream counts;
    counts << counts_.telemetry_points << ' ' << counts_.log_lines << ' ' << counts_.events << '\n';
    write_file_atomic(directory_ + "/lost", counts.str());
    if (gaps_.streams_size() > 0)
      write_file_atomic(directory_ + "/lost-lines", gaps_.SerializeAsString());
    else
      ::unlink((directory_ + "/lost-lines").c_str());
    changed_ = false;
  } catch (const Error& error) {
    log::warn("the count of what is lost cannot be saved yet", error);
  }
}

void LostLog::add(Upward kind, std::string_view payload) {
  changed_ = true;
  if (kind == Upward::kEvents) {
    ++counts_.events;
  } else if (kind == Upward::kTelemetry) {
    device::v1::TelemetryBatch batch;
    if (batch.ParseFromArray(payload.data(), static_cast<int>(payload.size())))
      counts_.telemetry_points += batch.points_size();
  } else {
    LogBatch batch;
    if (!batch.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) return;
    for (const LogStream& stream : batch.streams()) add_lines(stream);
  }
}

void LostLog::add_lines(const LogStream& stream) {
  counts_.log_lines += stream.lines_size();
  const LogGap fresh = cover(stream);
  if (fresh.count() == 0) return;
  for (LogStream& known : *gaps_.mutable_streams()) {
    if (known.service() != stream.service() || known.epoch() != stream.epoch()) continue;
    LogGap& last = *known.mutable_gaps()->rbegin();
    if (last.first_number() + last.count() != fresh.first_number()) {
      *known.add_gaps() = fresh;
      return;
    }
    last.set_count(last.count() + fresh.count());
    last.set_to_ms(std::max(last.to_ms(), fresh.to_ms()));
    return;
  }
  LogStream& known = *gaps_.add_streams();
  known.set_service(stream.service());
  known.set_epoch(stream.epoch());
  *known.add_gaps() = fresh;
}

std::string LostLog::untold() const {
  return gaps_.streams_size() == 0 ? "" : gaps_.SerializeAsString();
}

// What was added meanwhile stays; the gaps that were told may be told again with it.
void LostLog::forget(const std::string& told) {
  if (untold() != told) return;
  gaps_.Clear();
  changed_ = true;
}

}  // namespace flock::agent

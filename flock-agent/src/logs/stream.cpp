// SPDX-License-Identifier: Apache-2.0
#include "logs/stream.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/time.h"

namespace flock::agent {
namespace {

using device::v1::LogGap;
using device::v1::LogLine;

constexpr std::size_t kLineOverhead = 32;  // of a line or gap in a batch

std::int64_t unix_now() { return to_unix_ms(system_clock().now()); }

}  // namespace

LogStream::LogStream(std::string service, RateLimit limit, Sink& sink)
    : service_(std::move(service)),
      sink_(sink),
      assembler_([this](LogLine line) { number(std::move(line)); }),
      limit_(limit) {
  new_epoch();
  safe_ = cut_ = clean_ = {.epoch = epoch_};
}

void LogStream::new_epoch() {
  epoch_ = std::max(unix_now(), epoch_ + 1);
  next_ = 1;
}

void LogStream::restore(const Position& saved, bool sure, bool clean) {
  saved_ = saved;
  sure_ = sure;
  was_clean_ = clean;
  epoch_ = saved.epoch;
  next_ = saved.number;
  safe_ = cut_ = clean_ = saved;
}

// --- Files

bool LogStream::knows(const std::string& container) const {
  return (file_ && container_ == container) ||
         std::ranges::any_of(upcoming_, [&](const auto& u) { return u.container == container; });
}

void LogStream::add_file(const std::string& container, LogFile file) {
  upcoming_.push_back({container, std::move(file)});
}

void LogStream::keep_only(const std::function<bool(const std::string&)>& here) {
  ended_ = file_ && !here(container_);
}

bool LogStream::read(std::int64_t now_ms) {
  if (!file_) {
    if (upcoming_.empty()) return false;
    Upcoming next = std::move(upcoming_.front());
    upcoming_.pop_front();
    begin_file(std::move(next.container), std::move(next.file));
  }
  // Asked before reading: what was written before it was replaced is read below.
  const bool replaced = file_->replaced();
  const auto take = [this](std::string_view raw, std::int64_t begin, std::int64_t end) {
    assembler_.take(raw, begin, end);
    note_clean();
  };
  if (file_->read(take)) return true;
  if (!replaced && !ended_) {
    assembler_.settle(now_ms);
    note_clean();
    return false;
  }
  file_->read_rest(take);
  finish_file();
  return true;
}

void LogStream::begin_file(std::string container, LogFile file) {
  ended_ = false;
  assembler_ = LineAssembler([this](LogLine line) { number(std::move(line)); });
  container_ = std::move(container);
  head_ = file.head();
  offset_ = 0;
  if (saved_) resume(container_, file);
  file.seek(offset_);
  assembler_.begin_at(offset_);
  file_ = std::move(file);
  note_clean();
}

// Goes on where flockd was when it ran last, as far as that can be known.
void LogStream::resume(const std::string& container, const LogFile& file) {
  const Position saved = *std::exchange(saved_, std::nullopt);
  const bool same = saved.container == container && saved.inode == file.inode() &&
                    head_.starts_with(saved.head) && file.size() >= saved.offset;
  const bool complete = saved.container.empty();
  if (same) offset_ = saved.offset;
  // Numbers may have been used that would now go to other lines: those of a file that is gone, or,
  // when the power failed, of lines that did not reach the disk.
  const bool certain = was_clean_ || (sure_ && (same || complete));
  if (certain)
    limit_.restore(saved.limit);
  else
    new_epoch();
  if (!same && !complete) add_gap(LogGap::UNREADABLE, 1, unix_now());
}

// To its end: another file takes its place, now or later.
void LogStream::finish_file() {
  assembler_.finish();
  const bool goes_on = !ended_;
  const std::string path = file_->path();
  file_.reset();
  if (goes_on) {
    try {
      begin_file(container_, LogFile(path));
      return;
    } catch (const Error& error) {
      log::debug("a container's log is gone", error);  // it comes back with follow()
    }
  }
  container_.clear();
  clean_ = {.epoch = epoch_, .number = next_, .limit = limit_.state()};
}

// --- Other sources

void LogStream::begin_source(const std::string& source) {
  container_ = source;
  if (saved_) {
    const Position saved = *std::exchange(saved_, std::nullopt);
    const bool same = saved.container == source;
    if (same) offset_ = saved.offset;
    if (was_clean_ || (sure_ && same))
      limit_.restore(saved.limit);
    else
      new_epoch();
  }
  note_clean();
}

void LogStream::add_line(LogLine line, std::int64_t offset_behind) {
  offset_ = offset_behind;
  number(std::move(line));
  note_clean();
}

// --- Numbers

void LogStream::number(LogLine line) {
  const std::int64_t number = next_++;
  if (!limit_.pass(line.at_ms(), line.text().size())) {
    if (!gap_) {
      gap_.emplace();
      gap_->set_first_number(number);
      gap_->set_reason(LogGap::RATE_LIMITED);
      gap_->set_from_ms(line.at_ms());
    }
    gap_->set_count(gap_->count() + 1);
    gap_->set_to_ms(line.at_ms());
    return;
  }
  flush_gap();
  sink_.bytes += line.text().size() + kLineOverhead;
  line.set_number(number);
  *out().add_lines() = std::move(line);
}

void LogStream::add_gap(LogGap::Reason reason, std::int64_t count, std::int64_t at_ms) {
  flush_gap();
  LogGap& gap = *out().add_gaps();
  gap.set_first_number(next_);
  gap.set_count(count);
  gap.set_reason(reason);
  gap.set_from_ms(at_ms);
  gap.set_to_ms(at_ms);
  next_ += count;
  sink_.bytes += kLineOverhead;
}

void LogStream::flush_gap() {
  if (!gap_) return;
  *out().add_gaps() = *std::exchange(gap_, std::nullopt);
  sink_.bytes += kLineOverhead;
}

device::v1::LogStream& LogStream::out() {
  if (out_ == nullptr || out_->epoch() != epoch_) {
    out_ = sink_.batch.add_streams();
    out_->set_service(service_);
    out_->set_epoch(epoch_);
    sink_.bytes += kLineOverhead + service_.size();
  }
  return *out_;
}

void LogStream::note_clean() {
  if (file_) {
    const auto offset = assembler_.clean_offset();
    if (!offset) return;
    offset_ = *offset;
  }
  clean_.epoch = epoch_;
  clean_.number = next_;
  clean_.container = container_;
  clean_.inode = file_ ? file_->inode() : 0;
  clean_.head = head_;
  clean_.offset = offset_;
  clean_.limit = limit_.state();
}

void LogStream::cut() {
  flush_gap();
  out_ = nullptr;
  cut_ = clean_;
}

}  // namespace flock::agent

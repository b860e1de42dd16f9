// SPDX-License-Identifier: Apache-2.0
#include "logs/stream.h"

#include <algorithm>
#include <ranges>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/time.h"

namespace flock::agent {
namespace {

using device::v1::LogGap;
using device::v1::LogLine;

constexpr std::size_t kLineOverhead = 32;  // of a line or gap in a batch
// Of a service, replaced and not read yet: each takes up to the size at which it was rotated.
constexpr std::size_t kHeldFiles = 3;

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

void LogStream::restore(const Position& saved, const std::string& boot_id) {
  saved_ = saved;
  same_boot_ = saved.boot_id == boot_id;
  epoch_ = saved.epoch;
  next_ = saved.number;
  safe_ = cut_ = clean_ = saved;
}

// --- Files

const LogFile* LogStream::newest(const std::string& container) const {
  for (const Upcoming& next : upcoming_ | std::views::reverse)
    if (next.container == container) return &next.file;
  return file_ && container_ == container ? &*file_ : nullptr;
}

void LogStream::add_file(const std::string& container, LogFile file) {
  upcoming_.push_back({container, std::move(file)});
}

void LogStream::rotated(const std::string& container, int times) {
  if (container == container_) {
    const int known = std::min(times, foreseen_);
    foreseen_ -= known;
    times -= known;
  }
  const LogFile* const last = newest(container);
  if (last == nullptr || times <= 0) return;
  LogFile fresh(last->path());
  if (fresh.inode() != last->inode())  // held open, its number is no other's
    return hold({container, std::move(fresh), times > 1});
  // It was opened after the one that this tells of was gone.
  if (const auto at = last_held(container); at != upcoming_.end()) {
    at->gap = true;
    return;
  }
  // Lines of it may have numbers already: whoever reads it again after a kill would not find the
  // gap.
  new_epoch();
  add_unknown_gap();
  note_clean();
}

std::deque<LogStream::Upcoming>::iterator LogStream::last_held(const std::string& container) {
  const auto from_behind =
      std::ranges::find(upcoming_.rbegin(), upcoming_.rend(), container, &Upcoming::container);
  return from_behind == upcoming_.rend() ? upcoming_.end() : std::prev(from_behind.base());
}

// Behind the others of its container. Whoever writes faster than this is read must not fill the
// disk with files that have no name any more.
void LogStream::hold(Upcoming next) {
  const auto last = last_held(next.container);
  const auto held = std::ranges::count(upcoming_, next.container, &Upcoming::container);
  if (std::cmp_greater_equal(held, kHeldFiles)) {
    next.gap = true;
    *last = std::move(next);
    return;
  }
  upcoming_.insert(last == upcoming_.end() ? upcoming_.begin() : std::next(last), std::move(next));
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
    if (next.gap) {
      add_unknown_gap();
      note_clean();
    }
  }
  // Asked before reading: what was written before it was replaced is read below.
  const bool replaced = goes_on() || file_->replaced();
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
  if (container != container_) {
    ended_ = false;
    foreseen_ = 0;
  }
  assembler_ = LineAssembler([this](LogLine line) { number(std::move(line)); });
  container_ = std::move(container);
  head_ = file.head();
  offset_ = 0;
  if (saved_) resume(container_, file);
  file.seek(offset_);
  assembler_.begin_at(offset_);
  file_ = std::move(file);
  note_clean();
  begin();
}

// From here on a restart goes on, until more is safe.
void LogStream::begin() {
  if (!std::exchange(begun_, true)) safe_ = cut_ = clean_;
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
  const bool certain = saved.clean || (same_boot_ && (same || complete));
  if (certain)
    limit_.restore(saved.limit);
  else
    new_epoch();
  if (!same && !complete) add_unknown_gap();
}

// Nobody knows how many lines were in what is gone: it takes one number.
void LogStream::add_unknown_gap() {
  const std::int64_t to = unix_now();
  add_gap(LogGap::UNREADABLE, 1, last_at_ms_ == 0 ? to : std::min(last_at_ms_, to), to);
}

// To its end: another file takes its place, now or later.
void LogStream::finish_file() {
  assembler_.finish();
  const std::string path = file_->path();
  file_.reset();
  if (goes_on()) return;  // read() begins it
  if (!ended_) {
    try {
      begin_file(container_, LogFile(path));
      ++foreseen_;
      return;
    } catch (const Error& error) {
      log::debug("a container's log is gone", error);  // it comes back with follow()
    }
  }
  container_.clear();
  clean_ = {.epoch = epoch_, .number = next_, .limit = limit_.state()};
}

// --- Other sources

std::optional<std::int64_t> LogStream::resume_source(const std::string& source) {
  container_ = source;
  if (!saved_) return std::nullopt;
  const Position saved = *std::exchange(saved_, std::nullopt);
  const bool same = saved.container == source;
  if (saved.clean || (same_boot_ && same))
    limit_.restore(saved.limit);
  else
    new_epoch();
  if (!same) return std::nullopt;
  begin_source(saved.offset);
  return offset_;
}

void LogStream::begin_source(std::int64_t offset) {
  offset_ = offset;
  note_clean();
  begin();
}

void LogStream::add_line(LogLine line, std::int64_t offset_behind) {
  offset_ = offset_behind;
  number(std::move(line));
  note_clean();
}

// --- Numbers

void LogStream::number(LogLine line) {
  const std::int64_t number = next_++;
  last_at_ms_ = line.at_ms();
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

void LogStream::add_gap(LogGap::Reason reason, std::int64_t count, std::int64_t from_ms,
                        std::int64_t to_ms) {
  flush_gap();
  LogGap& gap = *out().add_gaps();
  gap.set_first_number(next_);
  gap.set_count(count);
  gap.set_reason(reason);
  gap.set_from_ms(from_ms);
  gap.set_to_ms(to_ms);
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

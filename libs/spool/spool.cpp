// SPDX-License-Identifier: Apache-2.0
// Files: N.spool, the segments; `position`, what is done (not synced: after a loss of power some
// records come again); `dropped`, what went because the spool was full (synced: it is reported).
#include "spool/spool.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "spool/file_disk.h"
#include "spool/segment.h"

namespace flock {
namespace {

using namespace spool;

constexpr const char* kPosition = "position";
constexpr const char* kDropped = "dropped";
// A segment in use that is done is kept below this size: queues that are often empty need not make
// a file each time.
constexpr std::int64_t kKeptBytes = 64 << 10;

struct Segment {
  std::int64_t number = 0;
  std::int64_t bytes = 0;                  // up to the end of its last whole record
  std::int64_t records = 0;                // whole ones
  std::int64_t done = 0;                   // of them
  std::int64_t done_bytes = kHeaderBytes;  // offset behind the last that is done
  std::int64_t waiting() const { return records - done; }
};

struct Mark {
  std::int64_t number, end;
};

}  // namespace

struct Spool::Impl {
  Impl(SpoolOptions given, std::unique_ptr<Disk> own, Disk& used)
      : options(std::move(given)), owned(std::move(own)), disk(used) {
    // At least four, so that a full queue loses a part of itself.
    options.segment_bytes =
        std::min(options.segment_bytes, static_cast<std::size_t>(std::max<std::int64_t>(
                                            options.limit_bytes / 4, kHeaderBytes + kFrameBytes)));
    open();
  }

  // --- opening
  void open();
  void open_segment(std::int64_t number, Mark position, bool last);
  std::vector<std::int64_t> numbers_in(const char* name, std::size_t count);
  // --- writing
  std::int64_t room_for(std::int64_t need);
  void write(std::int64_t offset, std::string_view record, Sync sync);
  void undo(std::int64_t offset);
  void sync_last();
  void close_unsynced();
  bool drop_oldest();
  void tell_drops(const Segment& segment);
  void save_dropped();
  // --- reading
  bool read_segment(std::size_t index, std::size_t bytes, std::vector<std::string>& records);
  void lose_unreadable(Segment& segment, std::int64_t readable);
  void remove_done();

  void remove_file(std::int64_t number) {
    try {
      disk.remove(segment_name(number));
    } catch (const Error& e) {
      log::warn("a part of a spool cannot be removed", e);
    }
  }

  SpoolOptions options;
  std::unique_ptr<Disk> owned;
  Disk& disk;
  std::deque<Segment> segments;  // oldest first; records go into the last one, unless closed
  std::int64_t next_number = 1;
  std::int64_t total = 0;  // bytes of all segments
  bool closed = true;      // the last segment takes no more records
  bool unsynced = false;   // the last segment has records that are not synced
  bool new_name = false;   // ... and its name is not
  bool lost = false;       // what was to be synced may be gone: the next sync() must say so
  bool dropped_unsaved = false;
  std::vector<Mark> given;  // by next()
  Dropped dropped;
  std::int64_t damaged = 0;
};

// --- opening

// Nothing usable: zeros.
std::vector<std::int64_t> Spool::Impl::numbers_in(const char* name, std::size_t count) {
  auto numbers = read_checked(disk.read(name, 0, 8 * count + 4));
  const auto sane = [](std::int64_t number) { return number >= 0 && number <= kMaxNumber; };
  if (!numbers || numbers->size() != count || !std::ranges::all_of(*numbers, sane))
    return std::vector<std::int64_t>(count);
  return *numbers;
}

void Spool::Impl::open() {
  const auto drops = numbers_in(kDropped, 3);
  dropped = {drops[1], drops[2]};
  const auto place = numbers_in(kPosition, 2);
  const Mark position{place[0], place[1]};
  const std::int64_t first = std::max(drops[0], position.number);
  // Never a number again that `position` may speak of.
  next_number = first + 1;

  std::vector<std::int64_t> found;
  for (const std::string& name : disk.list(kSuffix)) {
    const auto number = segment_number(name);
    if (!number) continue;
    if (*number < first)
      remove_file(*number);
    else
      found.push_back(*number);
  }
  for (const std::int64_t number : found) {
    next_number = std::max(next_number, number + 1);
    open_segment(number, position, number == found.back());
  }
  remove_done();
}

void Spool::Impl::open_segment(std::int64_t number, Mark position, bool last) {
  const std::int64_t done_to = number == position.number ? position.end : kHeaderBytes;
  Segment segment{.number = number};
  SegmentReader reader(disk, number);
  while (reader.next()) {
    ++segment.records;
    if (reader.offset() > done_to) continue;
    ++segment.done;
    segment.done_bytes = reader.offset();
  }
  segment.bytes = reader.offset();
  damaged += reader.passed_over();
  // Behind the position nothing is left of what it counted: new records must not come to lie below
  // it.
  bool keep = segment.bytes > kHeaderBytes && done_to <= segment.bytes;
  if (reader.torn() && last) {
    log::warn("a spool's last record is not whole and was cut off",
              {{"folder", options.directory},
               {"segment", segment_name(number)},
               {"bytes", disk.size(segment_name(number)) - segment.bytes}});
    if (keep) {
      disk.cut(segment_name(number), segment.bytes);
      disk.sync(segment_name(number));
    }
  } else if (reader.torn()) {
    ++damaged;
    log::warn("a part of a spool is damaged; it goes on with the next",
              {{"folder", options.directory},
               {"segment", segment_name(number)},
               {"after_bytes", segment.bytes}});
  }
  if (reader.passed_over() > 0)
    log::warn("damaged records in a spool are left out", {{"folder", options.directory},
                                                          {"segment", segment_name(number)},
                                                          {"records", reader.passed_over()}});
  if (!keep) return remove_file(number);
  closed = !last;
  total += segment.bytes;
  segments.push_back(segment);
}

// --- writing

// Where the record goes: makes a new segment, and room, as needed.
std::int64_t Spool::Impl::room_for(std::int64_t need) {
  if (!closed && segments.back().bytes + need > static_cast<std::int64_t>(options.segment_bytes)) {
    sync_last();
    closed = true;
  }
  while (total + need + (closed ? kHeaderBytes : 0) > options.limit_bytes && drop_oldest()) {
  }
  if (closed) {
    segments.push_back({.number = next_number++});
    closed = false;
    new_name = true;
  }
  return segments.back().bytes;
}

void Spool::Impl::write(std::int64_t offset, std::string_view record, Sync sync_when) {
  Segment& segment = segments.back();
  std::string bytes;
  if (offset == 0) bytes = header(segment.number);
  frame(bytes, segment.number, std::max(offset, kHeaderBytes), record);
  try {
    disk.write(segment_name(segment.number), offset, bytes);
    if (sync_when == Sync::kNow) {
      disk.sync(segment_name(segment.number));
      if (new_name) disk.sync_folder();
      unsynced = new_name = false;
    }
  } catch (const Error&) {
    undo(offset);
    throw;
  }
  if (sync_when == Sync::kLater) unsynced = true;
  segment.bytes += static_cast<std::int64_t>(bytes.size());
  total += static_cast<std::int64_t>(bytes.size());
  ++segment.records;
}

// The file as it was, as far as the disk lets us; the next record goes into a new one.
void Spool::Impl::undo(std::int64_t offset) {
  close_unsynced();
  const std::int64_t number = segments.back().number;
  if (offset == 0) {
    segments.pop_back();
    return remove_file(number);
  }
  try {
    disk.cut(segment_name(number), offset);
  } catch (const Error& e) {
    log::warn("a half-written record could not be cut off", e);
  }
}

void Spool::Impl::sync_last() {
  if (!unsynced) return;
  try {
    disk.sync(segment_name(segments.back().number));
    if (new_name) disk.sync_folder();
    unsynced = new_name = false;
  } catch (const Error&) {
    close_unsynced();
    throw;
  }
}

// The last segment takes no more. What was not synced may be gone, after a failed fsync nobody
// knows, and the next sync() says so.
void Spool::Impl::close_unsynced() {
  lost = lost || unsynced;
  closed = true;
  unsynced = new_name = false;
}

bool Spool::Impl::drop_oldest() {
  if (segments.empty()) return false;
  const Segment oldest = segments.front();
  if (options.on_drop && oldest.waiting() > 0) tell_drops(oldest);
  dropped.records += oldest.waiting();
  dropped.bytes += oldest.waiting() == 0 ? 0 : oldest.bytes - oldest.done_bytes;
  segments.pop_front();
  total -= oldest.bytes;
  if (segments.empty()) {
    closed = true;
    unsynced = new_name = false;
  }
  dropped_unsaved = dropped_unsaved || oldest.waiting() > 0;
  save_dropped();
  remove_file(oldest.number);
  return true;
}

void Spool::Impl::tell_drops(const Segment& segment) {
  try {
    SegmentReader reader(disk, segment.number, segment.done_bytes);
    while (const auto record = reader.next()) options.on_drop(*record);
  } catch (const Error& e) {
    log::warn("what a spool drops cannot be read", e);
  }
}

// Before the file goes: the count is right when the power fails in between. Where the disk is full,
// the file must go first.
void Spool::Impl::save_dropped() {
  if (!dropped_unsaved) return;
  const std::int64_t first = segments.empty() ? next_number : segments.front().number;
  try {
    disk.replace(kDropped, checked({first, dropped.records, dropped.bytes}));
    dropped_unsaved = false;
  } catch (const Error& e) {
    log::warn("the count of dropped records cannot be saved yet", e);
  }
}

// --- reading

// False when `bytes` is reached.
bool Spool::Impl::read_segment(std::size_t index, std::size_t bytes,
                               std::vector<std::string>& records) {
  Segment& segment = segments[index];
  std::size_t sum = 0;
  for (const std::string& record : records) sum += record.size();
  SegmentReader reader(disk, segment.number, segment.done_bytes);
  std::int64_t readable = segment.done;
  while (readable < segment.records) {
    const auto record = reader.next();
    if (!record) break;
    if (!records.empty() && sum + record->size() > bytes) return false;
    ++readable;
    sum += record->size();
    records.emplace_back(*record);
    given.push_back({segment.number, reader.offset()});
  }
  if (readable < segment.records) lose_unreadable(segment, readable);
  return true;
}

// Damage that came after it was opened.
void Spool::Impl::lose_unreadable(Segment& segment, std::int64_t readable) {
  damaged += segment.records - readable;
  log::warn("a part of a spool cannot be read any more; it goes on with the next",
            {{"folder", options.directory},
             {"segment", segment_name(segment.number)},
             {"records", segment.records - readable}});
  segment.records = readable;
  if (segment.number != segments.back().number) return;
  close_unsynced();
}

void Spool::Impl::remove_done() {
  while (!segments.empty() && segments.front().waiting() == 0) {
    const bool last = segments.size() == 1;
    if (last && !closed && (unsynced || segments.front().bytes < kKeptBytes)) return;
    remove_file(segments.front().number);
    total -= segments.front().bytes;
    segments.pop_front();
    if (last) closed = true;
  }
}

// --- the face

Spool::Spool(SpoolOptions options) {
  auto disk = std::make_unique<FileDisk>(options.directory);
  Disk& used = *disk;
  impl_ = std::make_unique<Impl>(std::move(options), std::move(disk), used);
}

Spool::Spool(SpoolOptions options, Disk& disk)
    : impl_(std::make_unique<Impl>(std::move(options), nullptr, disk)) {}

Spool::~Spool() {
  if (!impl_) return;
  try {
    impl_->save_dropped();
    impl_->sync_last();
  } catch (const Error& e) {
    log::warn("a spool cannot be closed cleanly", e, {{"folder", impl_->options.directory}});
  }
}

Spool::Spool(Spool&&) noexcept = default;

void Spool::append(std::string_view record, Sync sync) {
  const std::int64_t need = kFrameBytes + static_cast<std::int64_t>(record.size());
  if (record.size() > impl_->options.record_bytes ||
      need + kHeaderBytes > impl_->options.limit_bytes)
    throw Error(Code::kTooLarge, "record is too large for the spool")
        .with("folder", impl_->options.directory)
        .with("bytes", std::to_string(record.size()));
  impl_->write(impl_->room_for(need), record, sync);
}

void Spool::sync() {
  impl_->sync_last();
  if (std::exchange(impl_->lost, false))
    throw Error(Code::kUnavailable, "records may not have reached the disk")
        .with("folder", impl_->options.directory);
}

std::vector<std::string> Spool::next(std::size_t bytes) {
  impl_->given.clear();
  std::vector<std::string> records;
  for (std::size_t i = 0; i < impl_->segments.size(); ++i) {
    if (!impl_->read_segment(i, bytes, records)) break;
  }
  impl_->remove_done();
  return records;
}

void Spool::done(std::size_t count) {
  FLOCK_ASSERT(count <= impl_->given.size());
  if (count == 0) return;
  for (std::size_t i = 0; i < count; ++i) {
    const Mark mark = impl_->given[i];
    const auto segment = std::ranges::find(impl_->segments, mark.number, &Segment::number);
    if (segment == impl_->segments.end()) continue;  // dropped meanwhile
    ++segment->done;
    segment->done_bytes = mark.end;
  }
  const Mark last = impl_->given[count - 1];
  impl_->given.erase(impl_->given.begin(),
                     impl_->given.begin() + static_cast<std::ptrdiff_t>(count));
  try {
    impl_->disk.write(kPosition, 0, checked({last.number, last.end}));
  } catch (const Error& e) {
    log::warn("a spool's position cannot be saved; some records may come again", e);
  }
  impl_->remove_done();
}

bool Spool::empty() const noexcept { return waiting_records() == 0; }

std::int64_t Spool::waiting_bytes() const noexcept {
  std::int64_t bytes = 0;
  for (const Segment& segment : impl_->segments)
    if (segment.waiting() > 0) bytes += segment.bytes - segment.done_bytes;
  return bytes;
}

std::int64_t Spool::waiting_records() const noexcept {
  std::int64_t records = 0;
  for (const Segment& segment : impl_->segments) records += segment.waiting();
  return records;
}

Dropped Spool::dropped() const noexcept { return impl_->dropped; }
std::int64_t Spool::disk_bytes() const noexcept { return impl_->total; }
bool Spool::drop_oldest() { return impl_->drop_oldest(); }
std::int64_t Spool::damaged() const noexcept { return impl_->damaged; }

}  // namespace flock

// SPDX-License-Identifier: Apache-2.0
// Private to this room: the numbered lines of one service, whichever container writes them.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string>

#include "flock/device/v1/device.pb.h"
#include "logs/lines.h"
#include "logs/log_file.h"
#include "logs/positions.h"

namespace flock::agent {

class LogStream {
 public:
  // Where finished lines and gaps go: the batch that is being filled.
  struct Sink {
    device::v1::LogBatch batch;
    std::size_t bytes = 0;
  };
  LogStream(std::string service, RateLimit limit, Sink& sink);
  LogStream(const LogStream&) = delete;
  LogStream& operator=(const LogStream&) = delete;

  // What was known when flockd ran last; `boot_id`: the kernel's now.
  void restore(const Position& saved, const std::string& boot_id);

  // --- A container's file after another
  void add_file(const std::string& container, LogFile file);
  bool knows(const std::string& container) const { return newest(container) != nullptr; }
  // Its path was given to another file, so many times since it was added or this was called: holds
  // the one that is there now. Of those in between nothing is left; that is a gap. Throws
  // Error{kUnavailable} when there is none now.
  void rotated(const std::string& container, int times);
  const LogFile* newest(const std::string& container) const;  // null: not known
  // Of those that are not in `here` nothing more comes.
  void keep_only(const std::function<bool(const std::string& container)>& here);
  // Reads a part. False when there is nothing to read now.
  bool read(std::int64_t now_ms);
  // A line waits for whether another belongs to it.
  bool waiting() const { return assembler_.waiting(); }
  bool idle() const { return !file_ && upcoming_.empty(); }
  const LogFile* file() const { return file_ ? &*file_ : nullptr; }

  // --- For lines that come from elsewhere
  // As a container that writes no file. Where it goes on, if it does.
  std::optional<std::int64_t> resume_source(const std::string& source);
  // It does not, and its first line is there: a restart must know of it before anything is sent,
  // for the source may forget it and number another one first.
  void begin_source(std::int64_t offset);
  std::int64_t source_offset() const { return offset_; }
  void add_line(device::v1::LogLine line, std::int64_t offset_behind);
  void add_gap(device::v1::LogGap::Reason reason, std::int64_t count, std::int64_t from_ms,
               std::int64_t to_ms);

  // The batch is complete: what is in it must not be added to.
  void cut();
  // What was cut is safe.
  void settled() { safe_ = cut_; }
  const Position& safe() const { return safe_; }
  // Numbers are being used.
  bool begun() const { return begun_; }
  bool announced = false;  // a restart would know of it
  std::int64_t next_number() const { return next_; }
  const std::string& service() const { return service_; }

 private:
  struct Upcoming {
    std::string container;
    LogFile file;
    bool gap = false;  // before it
  };
  void hold(Upcoming next);
  std::deque<Upcoming>::iterator last_held(const std::string& container);
  bool goes_on() const { return !upcoming_.empty() && upcoming_.front().container == container_; }
  // `container` by value: it may be the one that goes.
  void begin_file(std::string container, LogFile file);
  void resume(const std::string& container, const LogFile& file);
  void finish_file();
  void add_unknown_gap();
  void number(device::v1::LogLine line);
  void flush_gap();
  void note_clean();
  void begin();
  void new_epoch();
  device::v1::LogStream& out();

  std::string service_;
  Sink& sink_;
  device::v1::LogStream* out_ = nullptr;  // this service's part of the batch
  LineAssembler assembler_;
  RateLimit limit_;
  std::int64_t epoch_ = 0, next_ = 1;
  std::optional<device::v1::LogGap> gap_;  // lines over the rate, until one passes

  std::string container_;
  std::optional<LogFile> file_;
  std::string head_;
  bool ended_ = false;  // its container is gone
  int foreseen_ = 0;    // files that were opened before rotated() told of them
  std::int64_t last_at_ms_ = 0;
  std::int64_t offset_ = 0;
  std::deque<Upcoming> upcoming_;

  Position clean_, cut_, safe_;
  std::optional<Position> saved_;  // until the first file
  bool same_boot_ = false, begun_ = false;
};

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
#include "stores/audit/spool.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <sstream>

#include "base/bytes.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "crypto/keys.h"

namespace flock::stores {
namespace {

constexpr std::string_view kSuffix = ".spool";

std::string checksum(std::string_view text) { return to_hex(crypto::sha256(text).substr(0, 8)); }

std::optional<Spooled> read_record(const std::string& record) {
  if (record.size() < 17 || record[16] != ' ') return std::nullopt;
  const std::string_view rest = std::string_view(record).substr(17);
  if (checksum(rest) != record.substr(0, 16)) return std::nullopt;
  const std::size_t space = rest.find(' ');
  Spooled out{0, ""};
  if (space == rest.npos) return std::nullopt;
  std::from_chars(rest.data(), rest.data() + space, out.ns);
  out.line = rest.substr(space + 1);
  return out;
}

}  // namespace

Spool::Spool(std::string directory, std::int64_t limit_bytes, std::size_t segment_bytes)
    : directory_(std::move(directory)), limit_(limit_bytes), segment_bytes_(segment_bytes) {}

std::string Spool::path(std::int64_t number) const {
  const std::string text = std::to_string(number);
  return directory_ + "/" + std::string(12 - std::min<std::size_t>(12, text.size()), '0') + text +
         std::string(kSuffix);
}

void Spool::open() {
  const std::lock_guard guard(mutex_);
  make_folders(directory_);
  lock_.take(directory_);
  heads_.clear();
  segments_.clear();
  read_heads();
  position_ = {};
  if (const auto text = read_file(directory_ + "/position")) {
    std::istringstream in(*text);
    in >> position_.number >> position_.offset >> position_.pushed_ns;
  }
  ahead_ = position_;
  const auto names = list_files(directory_, kSuffix);
  if (!names.empty()) segments::cut_torn_tail(directory_ + "/" + names.back());
  for (const std::string& name : names) {
    const Segment segment{std::stoll(name), segments::size_of(directory_ + "/" + name)};
    replay(segment);
    segments_.push_back(segment);
  }
  remove_drained();
}

void Spool::read_heads() {
  const auto text = read_file(directory_ + "/heads", 256 << 20);
  new_ = !text.has_value();
  if (!text) return;
  const std::size_t end = text->rfind("sum ");
  if (end == std::string::npos || text->substr(end + 4) != checksum(text->substr(0, end)) + "\n")
    throw Error(Code::kCorrupt, "the audit spool's `heads` file is damaged")
        .with("directory", directory_)
        .hint("move the file away: the heads are then read from Loki");
  std::istringstream in(text->substr(0, end));
  for (std::string kind, name; in >> kind >> name;) {
    if (kind == "head") {
      in >> heads_[name].seq >> heads_[name].hash;
    } else if (kind == "key") {
      recent_.add(name);
    } else {
      last_ns_ = std::stoll(name);
    }
  }
}

void Spool::replay(const Segment& segment) {
  segments::read_lines(path(segment.number), 0, SIZE_MAX >> 1, [&](const std::string& text) {
    const auto record = read_record(text);
    const auto line = record ? audit::read_line(record->line) : std::nullopt;
    if (!line) {
      log::write(log::Level::kError, "a line of the audit spool is damaged",
                 {{"file", path(segment.number)}, {"bytes", text.size()}});
      return;
    }
    last_ns_ = std::max(last_ns_, record->ns);
    recent_.add(line->event.key());
    audit::Head& head = heads_[line->event.org];
    if (line->seq > head.seq) head = {line->seq, line->hash};
  });
}

bool Spool::is_new() const {
  const std::lock_guard guard(mutex_);
  return new_;
}

void Spool::learn(std::map<std::string, audit::Head> heads) {
  const std::lock_guard guard(mutex_);
  for (auto& [org, head] : heads) {
    if (head.seq > heads_[org].seq) heads_[org] = std::move(head);
  }
  write_heads();
  new_ = false;
}

void Spool::append(const std::vector<audit::Event>& events) {
  const std::lock_guard guard(mutex_);
  std::map<std::string, audit::Head> heads;
  segments::RecentKeys fresh(events.size());
  std::string text;
  std::int64_t ns = last_ns_;
  for (const audit::Event& event : events) {
    const std::string key = event.key();
    if (recent_.contains(key) || fresh.contains(key)) continue;
    fresh.add(key);
    auto head = heads.find(event.org);
    if (head == heads.end()) {
      const auto known = heads_.find(event.org);
      head = heads.emplace(event.org, known == heads_.end() ? audit::Head() : known->second).first;
    }
    ns = std::max(ns + 1, to_unix_ms(system_clock().now()) * 1'000'000);
    const std::string record = std::to_string(ns) + " " + audit::next_line(event, head->second);
    text += checksum(record) + " " + record + "\n";
  }
  if (text.empty()) return;
  const auto bytes = static_cast<std::int64_t>(text.size());
  if (waiting() + bytes > limit_)
    throw Error(Code::kUnavailable, "the audit spool is full")
        .with("bytes", std::to_string(waiting()))
        .hint("Loki must take some before anything can change again, or raise audit.spool_bytes");
  if (segments_.empty() || segments_.back().bytes >= static_cast<std::int64_t>(segment_bytes_))
    segments_.push_back(
        {segments_.empty() ? position_.number + 1 : segments_.back().number + 1, 0});
  segments::append(path(segments_.back().number), text);
  segments_.back().bytes += bytes;
  last_ns_ = ns;
  for (auto& [org, head] : heads) heads_[org] = std::move(head);
  for (const std::string& key : fresh.all()) recent_.add(key);
}

std::vector<Spooled> Spool::next(std::size_t bytes) {
  const std::lock_guard guard(mutex_);
  std::vector<Spooled> out;
  ahead_ = position_;
  for (const Segment& segment : segments_) {
    if (segment.number < ahead_.number) continue;
    if (segment.number > ahead_.number) ahead_ = {segment.number, 0, ahead_.pushed_ns};
    ahead_.offset = segments::read_lines(path(segment.number), ahead_.offset, bytes,
                                         [&](const std::string& text) {
                                           if (auto record = read_record(text))
                                             out.push_back(std::move(*record));
                                           else
                                             segments::append(directory_ + "/damaged", text + "\n");
                                         });
    if (!out.empty()) break;
  }
  return out;
}

void Spool::done(std::int64_t pushed_ns) {
  const std::lock_guard guard(mutex_);
  Position position = ahead_;
  position.pushed_ns = pushed_ns;
  write_position(position);
  remove_drained();
}

std::int64_t Spool::pushed_ns() const {
  const std::lock_guard guard(mutex_);
  return position_.pushed_ns;
}

std::int64_t Spool::waiting_bytes() const {
  const std::lock_guard guard(mutex_);
  return waiting();
}

std::int64_t Spool::waiting() const {
  std::int64_t bytes = 0;
  for (const Segment& segment : segments_) {
    if (segment.number > position_.number) bytes += segment.bytes;
    if (segment.number == position_.number) bytes += segment.bytes - position_.offset;
  }
  return bytes;
}

void Spool::write_position(const Position& position) {
  write_file_atomic(directory_ + "/position", std::to_string(position.number) + " " +
                                                  std::to_string(position.offset) + " " +
                                                  std::to_string(position.pushed_ns) + "\n");
  position_ = position;
}

void Spool::write_heads() const {
  std::string text = "ns " + std::to_string(last_ns_) + "\n";
  for (const auto& [org, head] : heads_)
    text += "head " + org + " " + std::to_string(head.seq) + " " + head.hash + "\n";
  for (const std::string& key : recent_.all()) text += "key " + key + "\n";
  write_file_atomic(directory_ + "/heads", text + "sum " + checksum(text) + "\n");
}

// The heads go first: a file that is gone is known by them alone.
void Spool::remove_drained() {
  const auto drained = [&](const Segment& segment) {
    const bool grows =
        &segment == &segments_.back() && segment.bytes < static_cast<std::int64_t>(segment_bytes_);
    return !grows && (segment.number < position_.number ||
                      (segment.number == position_.number && segment.bytes <= position_.offset));
  };
  if (segments_.empty() || !drained(segments_.front())) return;
  write_heads();
  while (!segments_.empty() && drained(segments_.front())) {
    segments::remove(path(segments_.front().number));
    segments_.erase(segments_.begin());
  }
}

}  // namespace flock::stores

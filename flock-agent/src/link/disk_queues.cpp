// SPDX-License-Identifier: Apache-2.0
#include "link/disk_queues.h"

#include <algorithm>
#include <utility>

#include "base/files.h"
#include "base/log.h"

namespace flock::agent {
namespace {

constexpr std::size_t kRecordBytes = 256 << 10;
constexpr std::array<const char*, 3> kFolders{"telemetry", "logs", "events"};

std::size_t index_of(Upward kind) { return static_cast<std::size_t>(kind); }

}  // namespace

DiskQueues::DiskQueues(std::string directory, std::int64_t limit_bytes,
                       std::function<void(Upward, std::string_view)> on_drop)
    : directory_(std::move(directory)), limit_bytes_(limit_bytes), on_drop_(std::move(on_drop)) {}

const char* DiskQueues::name_of(Upward kind) { return kFolders[index_of(kind)]; }

Spool* DiskQueues::open(Upward kind) {
  std::optional<Spool>& queue = queues_[index_of(kind)];
  if (queue) return &*queue;
  SpoolOptions out;
  out.directory = directory_ + "/" + name_of(kind);
  out.limit_bytes = limit_bytes_;
  // Small parts go when there is no room, but not a file for each message.
  out.segment_bytes =
      static_cast<std::size_t>(std::clamp<std::int64_t>(limit_bytes_ / 64, 4096, 256 << 10));
  out.record_bytes = kRecordBytes;
  out.on_drop = [this, kind](std::string_view record) { on_drop_(kind, record); };
  try {
    queue.emplace(std::move(out));
    return &*queue;
  } catch (const Error& error) {
    note_trouble(error);
    return nullptr;
  }
}

bool DiskQueues::store(Upward kind, const std::string& payload) {
  Spool* queue = open(kind);
  if (queue == nullptr) return false;
  while (disk_bytes() + static_cast<std::int64_t>(payload.size()) + 64 > limit_bytes_)
    if (!make_room(kind)) return false;
  std::string refusal;
  while (!append(*queue, payload, refusal))
    if (!is_no_space(refusal) || !make_room(kind)) return false;
  return true;
}

bool DiskQueues::append(Spool& queue, const std::string& payload, std::string& refusal) {
  try {
    queue.append(payload, Spool::Sync::kLater);
    return true;
  } catch (const Error& error) {
    note_trouble(error);
    refusal = error.message();
    return false;
  }
}

void DiskQueues::sync(Upward kind) {
  std::optional<Spool>& queue = queues_[index_of(kind)];
  if (!queue) return;
  try {
    queue->sync();
    if (!std::exchange(refused_, false)) trouble_.clear();
  } catch (const Error& error) {
    note_trouble(error);
  }
}

void DiskQueues::note_trouble(const Error& error) {
  refused_ = true;
  if (!trouble_.empty()) return;
  trouble_ = error.message();
  log::error("the disk does not take what cannot be sent; what is lost is counted", error);
}

bool DiskQueues::make_room(Upward kind) {
  for (std::size_t i = 0; i < queues_.size(); ++i) {
    const bool may = queues_[i] && (i <= index_of(kind) || queues_[i]->empty());
    if (may && queues_[i]->drop_oldest()) return true;
  }
  return false;
}

std::int64_t DiskQueues::disk_bytes() const {
  std::int64_t sum = 0;
  for (const auto& queue : queues_) sum += queue ? queue->disk_bytes() : 0;
  return sum;
}

std::int64_t DiskQueues::waiting_records() const noexcept {
  std::int64_t sum = 0;
  for (const auto& queue : queues_) sum += queue ? queue->waiting_records() : 0;
  return sum;
}

std::int64_t DiskQueues::waiting_bytes() const noexcept {
  std::int64_t sum = 0;
  for (const auto& queue : queues_) sum += queue ? queue->waiting_bytes() : 0;
  return sum;
}

}  // namespace flock::agent

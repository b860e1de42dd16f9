// SPDX-License-Identifier: Apache-2.0
// For tests: a disk in memory that loses power, is full or fails to sync.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "spool/disk.h"

namespace flock {

struct PowerLoss {};

// What a real disk promises and no more: after a loss of power each part of a write that was not
// synced is there or not, in any order, and so is each file that was made or removed.
class TestDisk final : public Disk {
 public:
  using Random = std::mt19937_64;

  // Power fails at the step after the next `steps` ones that change something; < 0: never.
  void lose_power_after(int steps) { power_ = steps; }
  // From now on it fails with an Error instead: destructors throw nothing.
  void lose_power_quietly() { quiet_ = true; }
  bool power_lost() const { return lost_; }
  int steps() const { return steps_; }
  void set_capacity(std::size_t bytes) { capacity_ = bytes; }
  void fail_syncs(bool fail) { fail_syncs_ = fail; }
  std::size_t used() const {
    std::size_t sum = 0;
    for (const auto& [name, file] : names_) sum += file->content.size();
    return sum;
  }
  std::string* content(const std::string& name) {
    const auto file = names_.find(name);
    return file == names_.end() ? nullptr : &file->second->content;
  }

  // The power is back. `kept`: the share of what was not synced that is there.
  TestDisk after_power_loss(Random& random, double kept) {
    std::bernoulli_distribution keep(kept);
    auto names = synced_names_;
    for (const auto& [name, file] : name_changes_) {
      if (!keep(random)) continue;
      if (file)
        names[name] = file;
      else
        names.erase(name);
    }
    TestDisk disk;
    for (const auto& [name, file] : names) {
      auto copy = std::make_shared<File>();
      copy->content = file->synced;
      for (const Change& change : file->changes) change.redo(copy->content, random, keep);
      copy->synced = copy->content;
      disk.names_[name] = copy;
    }
    disk.synced_names_ = disk.names_;
    return disk;
  }

  std::vector<std::string> list(std::string_view suffix) override {
    std::vector<std::string> found;
    for (const auto& [name, file] : names_)
      if (name.ends_with(suffix)) found.push_back(name);
    return found;
  }
  std::int64_t size(const std::string& name) override {
    const std::string* bytes = content(name);
    return bytes == nullptr ? 0 : static_cast<std::int64_t>(bytes->size());
  }
  std::string read(const std::string& name, std::int64_t offset, std::size_t size) override {
    const std::string* bytes = content(name);
    if (bytes == nullptr || offset >= static_cast<std::int64_t>(bytes->size())) return "";
    return bytes->substr(static_cast<std::size_t>(offset), size);
  }
  void write(const std::string& name, std::int64_t offset, std::string_view bytes) override {
    step();
    File& file = file_for(name);
    const auto at = static_cast<std::size_t>(offset);
    const std::size_t grows =
        at + bytes.size() > file.content.size() ? at + bytes.size() - file.content.size() : 0;
    const std::size_t room = capacity_ - std::min(capacity_, used());
    const bool full = grows > room;
    if (full) bytes.remove_suffix(std::min(bytes.size(), grows - room));
    if (!bytes.empty()) apply(file, {.offset = at, .bytes = std::string(bytes)});
    if (full) throw Error(Code::kUnavailable, "no space left on device");
  }
  void cut(const std::string& name, std::int64_t size) override {
    step();
    apply(file_for(name), {.cut = true, .offset = static_cast<std::size_t>(size)});
  }
  void sync(const std::string& name) override {
    step();
    File& file = file_for(name);
    if (fail_syncs_) {
      // As Linux does: the pages count as clean afterwards, and were never written.
      file.changes.clear();
      throw Error(Code::kUnavailable, "input/output error");
    }
    file.synced = file.content;
    file.changes.clear();
  }
  void sync_folder() override {
    step();
    if (fail_syncs_) throw Error(Code::kUnavailable, "input/output error");
    synced_names_ = names_;
    name_changes_.clear();
  }
  void remove(const std::string& name) override {
    step();
    if (names_.erase(name) > 0) name_changes_.emplace_back(name, nullptr);
  }
  void replace(const std::string& name, std::string_view content) override {
    const std::string fresh = name + ".new";
    cut(fresh, 0);
    write(fresh, 0, content);
    sync(fresh);
    step();
    names_[name] = names_[fresh];
    names_.erase(fresh);
    name_changes_.emplace_back(name, names_[name]);
    sync_folder();
  }

 private:
  struct Change {
    bool cut = false;
    std::size_t offset = 0;
    std::string bytes;

    void redo(std::string& content, Random& random, std::bernoulli_distribution& keep) const {
      if (cut) {
        if (keep(random)) content.resize(offset);
        return;
      }
      for (std::size_t at = 0; at < bytes.size();) {
        const std::size_t part = std::min<std::size_t>(bytes.size() - at, 1 + random() % 32);
        if (keep(random)) {
          content.resize(std::max(content.size(), offset + at + part));  // zeros in between
          content.replace(offset + at, part, bytes, at, part);
        }
        at += part;
      }
    }
  };
  struct File {
    std::string content, synced;
    std::vector<Change> changes;
  };

  void step() {
    if (lost_) throw Error(Code::kUnavailable, "no power");
    if (power_ == 0) {
      lost_ = true;
      if (!quiet_) throw PowerLoss{};
      return step();
    }
    if (power_ > 0) --power_;
    ++steps_;
  }
  File& file_for(const std::string& name) {
    auto& file = names_[name];
    if (!file) {
      file = std::make_shared<File>();
      name_changes_.emplace_back(name, file);
    }
    return *file;
  }
  static void apply(File& file, Change change) {
    if (change.cut) {
      file.content.resize(change.offset);
    } else {
      file.content.resize(std::max(file.content.size(), change.offset + change.bytes.size()));
      file.content.replace(change.offset, change.bytes.size(), change.bytes);
    }
    file.changes.push_back(std::move(change));
  }

  std::map<std::string, std::shared_ptr<File>> names_, synced_names_;
  std::vector<std::pair<std::string, std::shared_ptr<File>>> name_changes_;
  int power_ = -1, steps_ = 0;
  bool lost_ = false, quiet_ = false, fail_syncs_ = false;
  std::size_t capacity_ = SIZE_MAX;
};

}  // namespace flock

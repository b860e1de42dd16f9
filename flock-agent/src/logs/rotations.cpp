// SPDX-License-Identifier: Apache-2.0
#include "logs/rotations.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace flock::agent {
namespace {

// conmon makes the next file under another name and renames it over the old one; other programs
// rename the old one and make the next. The rest keeps the kernel from telling two of these at once
// as one: it does so when they follow each other.
constexpr std::uint32_t kTaken = IN_MOVED_TO | IN_CREATE;
constexpr std::uint32_t kBetween = IN_MOVED_FROM | IN_DELETE;

std::string folder_of(const std::string& path) { return path.substr(0, path.rfind('/') + 1); }

}  // namespace

RotationWatch::RotationWatch() : inotify_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
  if (inotify_.get() < 0) throw file_error("watch", "the containers' logs");
}

void RotationWatch::add(const std::string& path) {
  const std::string folder = folder_of(path);
  const int watch =
      ::inotify_add_watch(inotify_.get(), folder.c_str(), kTaken | kBetween | IN_ONLYDIR);
  if (watch < 0) throw file_error("watch", folder);
  paths_[path] = watch;
  folders_[watch] = folder;
}

void RotationWatch::remove(const std::string& path) {
  const auto known = paths_.find(path);
  if (known == paths_.end()) return;
  const int watch = known->second;
  paths_.erase(known);
  if (std::ranges::any_of(paths_, [&](const auto& other) { return other.second == watch; })) return;
  ::inotify_rm_watch(inotify_.get(), watch);
  folders_.erase(watch);
}

std::map<std::string, int> RotationWatch::take() {
  std::map<std::string, int> out;
  alignas(inotify_event) char events[4096];
  for (ssize_t got = 0; (got = ::read(inotify_.get(), events, sizeof events)) > 0;) {
    for (const char* at = events; at < events + got;) {
      inotify_event event{};
      std::memcpy(&event, at, sizeof event);
      const char* const name = at + sizeof event;
      at = name + event.len;
      const auto folder = folders_.find(event.wd);
      if (folder == folders_.end() || event.len == 0 || (event.mask & kTaken) == 0) continue;
      const std::string path = folder->second + name;
      if (paths_.contains(path)) ++out[path];
    }
  }
  return out;
}

}  // namespace flock::agent

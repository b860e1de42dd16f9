// SPDX-License-Identifier: Apache-2.0
#include "logs/rotations.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace flock::agent {
namespace {

// conmon makes the next file under another name and renames it over the old one; other programs
// rename the old one and make the next. The rest keeps the kernel from telling two of these at once
// as one: it does so when they follow each other.
constexpr std::uint32_t kTaken = IN_MOVED_TO | IN_CREATE;
constexpr std::uint32_t kBetween = IN_MOVED_FROM | IN_DELETE;

// The path, or the link that it was.
constexpr std::uint32_t kLost = IN_MOVE_SELF | IN_ATTRIB | IN_DELETE_SELF;

std::string folder_of(const std::string& path) { return path.substr(0, path.rfind('/') + 1); }

}  // namespace

RotationWatch::RotationWatch()
    : folders_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)),
      files_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
  if (folders_.get() < 0 || files_.get() < 0) throw file_error("watch", "the containers' logs");
}

void RotationWatch::add(const std::string& path) {
  const std::string folder = folder_of(path);
  const int watch =
      ::inotify_add_watch(folders_.get(), folder.c_str(), kTaken | kBetween | IN_ONLYDIR);
  if (watch < 0) throw file_error("watch", folder);
  paths_[path].folder = watch;
  names_[watch] = folder;
  watch_file(path, paths_[path]);
}

void RotationWatch::remove(const std::string& path) {
  const auto known = paths_.find(path);
  if (known == paths_.end()) return;
  const Watched watched = known->second;
  paths_.erase(known);
  if (watched.file >= 0) ::inotify_rm_watch(files_.get(), watched.file);
  const auto same = [&](const auto& other) { return other.second.folder == watched.folder; };
  if (std::ranges::any_of(paths_, same)) return;
  ::inotify_rm_watch(folders_.get(), watched.folder);
  names_.erase(watched.folder);
}

// The one that has the path now; whatever it is given to from here on is a sign, or is in what the
// folder tells next.
void RotationWatch::watch_file(const std::string& path, Watched& watched) const {
  const int before =
      std::exchange(watched.file, ::inotify_add_watch(files_.get(), path.c_str(), kLost));
  if (before >= 0 && before != watched.file) ::inotify_rm_watch(files_.get(), before);
}

void RotationWatch::empty_files() const {
  char events[4096];
  while (::read(files_.get(), events, sizeof events) > 0) {
  }
}

std::map<std::string, int> RotationWatch::take() {
  empty_files();
  std::map<std::string, int> out;
  alignas(inotify_event) char events[4096];
  for (ssize_t got = 0; (got = ::read(folders_.get(), events, sizeof events)) > 0;) {
    for (const char* at = events; at < events + got;) {
      inotify_event event{};
      std::memcpy(&event, at, sizeof event);
      const char* const name = at + sizeof event;
      at = name + event.len;
      const auto folder = names_.find(event.wd);
      if (folder == names_.end() || event.len == 0 || (event.mask & kTaken) == 0) continue;
      const std::string path = folder->second + name;
      if (paths_.contains(path)) ++out[path];
    }
  }
  for (const auto& [path, times] : out) watch_file(path, paths_.at(path));
  return out;
}

}  // namespace flock::agent

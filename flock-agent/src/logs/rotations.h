// SPDX-License-Identifier: Apache-2.0
// Private to this room: sees each time another file takes a log's path, also when two do at once.
#pragma once

#include <map>
#include <string>

#include "base/files.h"

namespace flock::agent {

class RotationWatch {
 public:
  // Throws Error{kUnavailable}.
  RotationWatch();
  // Readable when take() has news.
  int descriptor() const { return inotify_.get(); }
  // Begin before the file is opened: nothing is missed in between. Throws Error{kUnavailable} when
  // its folder cannot be watched.
  void add(const std::string& path);
  void remove(const std::string& path);
  // How often each path was given to another file since the last call.
  std::map<std::string, int> take();

 private:
  FileDescriptor inotify_;
  std::map<std::string, int> paths_;    // the watch of its folder
  std::map<int, std::string> folders_;  // with the slash at its end
};

}  // namespace flock::agent

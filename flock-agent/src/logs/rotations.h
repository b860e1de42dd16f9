// SPDX-License-Identifier: Apache-2.0
// Private to this room: sees each time another file takes a log's path, also when two do at once.
#pragma once

#include <map>
#include <string>

#include "base/files.h"

namespace flock::agent {

// Runtimes make other files in a log's folder, several for each health check. So only the files
// themselves wake whoever waits; what happened in the folders is looked at then.
class RotationWatch {
 public:
  // Throws Error{kUnavailable}.
  RotationWatch();
  // Readable when a file lost its path.
  int descriptor() const { return files_.get(); }
  // Begin before the file is opened: nothing is missed in between. Throws Error{kUnavailable} when
  // its folder cannot be watched.
  void add(const std::string& path);
  void remove(const std::string& path);
  // How often each path was given to another file since the last call. To be called now and then in
  // any case: the kernel keeps so much and no more.
  std::map<std::string, int> take();

 private:
  struct Watched {
    int folder = -1, file = -1;  // watches
  };
  void watch_file(const std::string& path, Watched& watched) const;
  void empty_files() const;

  FileDescriptor folders_, files_;
  std::map<std::string, Watched> paths_;
  std::map<int, std::string> names_;  // of the folders, with the slash at the end
};

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
// Private to this room: what Podman says while it pulls, a JSON object a line.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace flock::agent {

class PullAnswer {
 public:
  // Parts may end anywhere. Throws Error{kTooLarge} for a line without end, {kInvalidArgument} or
  // {kProtocol} for what is no JSON object.
  void take(std::string_view chunk);
  // Of the bytes of the layers that Podman has named so far: 0 to 99, for the end is told by end().
  int percent() const;
  // What Podman says went wrong, or "". Call it when the answer is over.
  std::string end();

 private:
  struct Layer {
    std::int64_t current = 0, total = 0;
  };
  void take_line(std::string_view line);
  std::string rest_, failure_;
  std::map<std::string, Layer> layers_;
  bool done_ = false;
};

}  // namespace flock::agent

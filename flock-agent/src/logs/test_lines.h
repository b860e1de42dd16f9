// SPDX-License-Identifier: Apache-2.0
// For tests: lines as they are in a log.
#pragma once

#include <cstdio>
#include <string>

namespace flock::agent {

// A line as conmon writes it. `ms`: after the first second of a minute.
inline std::string piece(int ms, const std::string& text, const char* source = "stdout",
                         char tag = 'F') {
  char time[64];
  std::snprintf(time, sizeof time, "2026-11-25T01:20:%02d.%03d000000+00:00", 1 + ms / 1000,
                ms % 1000);
  return std::string(time) + " " + source + " " + tag + " " + text;
}

}  // namespace flock::agent

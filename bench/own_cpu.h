// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/resource.h>

namespace flock::bench {

// User and system time of this process, in microseconds.
inline double own_cpu() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

}  // namespace flock::bench

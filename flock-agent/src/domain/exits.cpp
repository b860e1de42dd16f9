// SPDX-License-Identifier: Apache-2.0
// How containers end.
#include <csignal>

#include "domain/plan.h"

namespace flock::agent {

device::v1::Exit exit_from_code(int code) {
  constexpr int kSignalled = 128, kSignals = 64;
  device::v1::Exit out;
  out.set_code(code);
  if (code > kSignalled && code <= kSignalled + kSignals)
    out.set_signal(static_cast<std::uint32_t>(code - kSignalled));
  return out;
}

bool comes_from_outside(std::uint32_t signal) {
  switch (signal) {
    case SIGHUP:
    case SIGINT:
    case SIGQUIT:
    case SIGKILL:
    case SIGTERM:
      return true;
    default:
      return false;
  }
}

}  // namespace flock::agent

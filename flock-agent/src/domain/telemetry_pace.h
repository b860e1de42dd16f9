// SPDX-License-Identifier: Apache-2.0
// Which looks at the machine are worth their bytes, and when they go out. No I/O, no clock.
#pragma once

#include <cstdint>

#include "base/time.h"
#include "flock/device/v1/device.pb.h"

namespace flock::agent {

struct PaceOptions {
  Duration look{30'000};    // how often to look
  Duration send{60'000};    // how often to send, when there is something new
  Duration quiet{300'000};  // the longest silence: then the last look goes out, new or not
  // During an update: looks and batches come so much more often.
  int hurry = 3;
};

class TelemetryPace {
 public:
  explicit TelemetryPace(PaceOptions options) : options_(options) {}

  // Whether this look is to be kept: it says something that the one kept before did not, or that
  // one is older than `quiet`.
  bool keep(const device::v1::TelemetryPoint& point);
  // The first batch after a connection goes out at once.
  void connected() noexcept { sent_at_ = SteadyPoint(); }
  // Whether what is kept should go out now.
  bool due(SteadyPoint now, bool updating) const noexcept;
  void sent(SteadyPoint now) noexcept { sent_at_ = now; }
  // Until the next look.
  Duration pause(bool updating) const noexcept { return hurried(options_.look, updating); }

 private:
  Duration hurried(Duration usual, bool updating) const noexcept {
    return updating ? usual / options_.hurry : usual;
  }
  PaceOptions options_;
  device::v1::TelemetryPoint kept_;
  SteadyPoint sent_at_{};
};

// Whether somebody who looks at both would see a difference: 5 % of the processor, 2 % of the
// memory or disk, 2 degrees, or services that came or went.
bool differs(const device::v1::TelemetryPoint& a, const device::v1::TelemetryPoint& b);

}  // namespace flock::agent

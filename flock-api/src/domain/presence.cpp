// SPDX-License-Identifier: Apache-2.0
#include "domain/presence.h"

#include <algorithm>

namespace flock::domain {
namespace {

constexpr Duration kKeepAlive{60'000};          // of a device that names none
constexpr Duration kKeepAliveMost{86'400'000};  // what a device may ask for

void begin_session(Presence& presence, std::int64_t seq) {
  if (seq > presence.session) {
    presence.before = presence.session;
    presence.session = seq;
  } else if (seq < presence.session) {
    presence.before = std::max(presence.before, seq);
  }
}

bool turn(Presence& presence, bool online) {
  if (presence.online == online) return false;
  presence.online = online;
  return true;
}

}  // namespace

bool take_sign(Presence& presence, Sign sign, std::int64_t seq) {
  if (sign == Sign::kHello) begin_session(presence, seq);
  if (sign == Sign::kLost) {
    if (seq < presence.before) return false;
    presence.seq = std::max({presence.seq, presence.session, seq});
    return turn(presence, false);
  }
  // The same one again must have the same effect, in case the first time was cut short.
  if (seq < presence.seq) return false;
  presence.seq = seq;
  return turn(presence, sign != Sign::kGoodbye);
}

std::string_view reason_of(Sign sign) {
  switch (sign) {
    case Sign::kReport:
    case Sign::kHello:
      return "connected";
    case Sign::kGoodbye:
      return "clean_stop";
    case Sign::kLost:
      return "connection_lost";
  }
  return "";
}

Duration silent_after(Duration keep_alive) {
  const Duration every = keep_alive <= Duration(0) ? kKeepAlive : keep_alive;
  return 3 * std::clamp(every, kKeepAlive, kKeepAliveMost);
}

}  // namespace flock::domain

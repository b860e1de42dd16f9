// SPDX-License-Identifier: Apache-2.0
// One identity on two machines: a copied disk image. Both speak, so the device names a boot again
// that another boot had followed; a restart never does that.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace flock::domain {

// The boots that a device named, in the order they took over; bounded.
struct BootHistory {
  struct Boot {
    std::string id;
    std::int64_t since_ms = 0;  // when it first spoke after another one, by the device's clock
  };
  std::vector<Boot> boots;
};

// Takes what the next message says of itself, and answers whether it comes from a second machine:
// its boot was followed by another one, and yet it was written later than that one began. One that
// was written earlier was only late on its way, as after a restart. An empty boot says nothing.
bool suspect_clone(BootHistory& history, std::string_view boot_id, std::int64_t at_ms);

}  // namespace flock::domain

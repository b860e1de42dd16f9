// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>

#include "workload/compose.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace flock::workload;
  try {
    // What is accepted must also survive being stored.
    const std::string text =
        to_json(parse_compose({reinterpret_cast<const char*>(data), size}).workload);
    try {
      FLOCK_ASSERT(to_json(from_json(text)) == text);
    } catch (const flock::Error&) {
      FLOCK_ASSERT(!"a stored workload cannot be read");
    }
  } catch (const flock::Error&) {
  }
  return 0;
}

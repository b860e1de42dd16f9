// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>

#include "workload/compose.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    flock::workload::parse_compose({reinterpret_cast<const char*>(data), size});
  } catch (const flock::Error&) {
  }
  return 0;
}

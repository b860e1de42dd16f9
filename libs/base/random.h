// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace flock {

// From the kernel (getrandom(2)): fit for keys and tokens. Aborts when the kernel cannot give any.
void random_bytes(void* out, std::size_t count);
std::string random_bytes(std::size_t count);
// Uniform in [0, bound); bound > 0.
std::uint64_t random_below(std::uint64_t bound);
// Uniform in [0, 1).
double random_unit();

}  // namespace flock

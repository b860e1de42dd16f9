// SPDX-License-Identifier: Apache-2.0
#include "base/random.h"

#include <sys/random.h>

#include <cerrno>

#include "base/error.h"

namespace flock {

void random_bytes(void* out, std::size_t count) {
  auto* at = static_cast<unsigned char*>(out);
  while (count > 0) {
    const ssize_t got = ::getrandom(at, count, 0);
    if (got < 0 && errno == EINTR) continue;
    FLOCK_ASSERT(got > 0);
    at += got;
    count -= static_cast<std::size_t>(got);
  }
}

std::string random_bytes(std::size_t count) {
  std::string bytes(count, '\0');
  random_bytes(bytes.data(), count);
  return bytes;
}

std::uint64_t random_below(std::uint64_t bound) {
  FLOCK_ASSERT(bound > 0);
  // Values under `reject` would make small results likelier than large ones.
  const std::uint64_t reject = (0 - bound) % bound;
  for (;;) {
    std::uint64_t value = 0;
    random_bytes(&value, sizeof value);
    if (value >= reject) return value % bound;
  }
}

double random_unit() {
  constexpr std::uint64_t kBits = std::uint64_t{1} << 53;
  return static_cast<double>(random_below(kBits)) / static_cast<double>(kBits);
}

}  // namespace flock

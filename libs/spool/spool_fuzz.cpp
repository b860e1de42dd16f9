// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "spool/spool.h"
#include "spool/test_disk.h"

using namespace flock;

namespace {

constexpr const char* kMine = "what is appended after damage arrives";

// True when the last record is ours.
bool drain(Spool& spool) {
  std::string last;
  while (!spool.empty()) {
    const auto records = spool.next(4096);
    if (!records.empty()) last = records.back();
    spool.done(records.size());
  }
  FLOCK_ASSERT(spool.next(1).empty());
  return last == kMine;
}

}  // namespace

// Two segments, the position and the count of drops with any content: it opens, ends, and what is
// appended comes out last.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  log::set_level(log::Level::kOff);
  std::string bytes(reinterpret_cast<const char*>(data), size);
  TestDisk disk;
  for (const char* name : {"position", "dropped", "0000000000000001.spool"}) {
    // "FL" parts the files.
    const std::size_t end = bytes.find("FL", 1);
    disk.write(name, 0, bytes.substr(0, end));
    bytes.erase(0, end);
  }
  disk.write("0000000000000002.spool", 0, bytes);
  const SpoolOptions options{.directory = "fuzz", .limit_bytes = 1 << 20, .segment_bytes = 4096};
  {
    Spool spool(options, disk);
    spool.append(kMine);
    const auto peek = spool.next(SIZE_MAX);
    FLOCK_ASSERT(!peek.empty() && peek.back() == kMine);
  }
  Spool spool(options, disk);
  FLOCK_ASSERT(drain(spool));
  return 0;
}

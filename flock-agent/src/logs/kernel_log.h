// SPDX-License-Identifier: Apache-2.0
// Private to this room: the kernel's messages (dev-kmsg, Documentation/ABI/testing/dev-kmsg).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/files.h"
#include "flock/device/v1/device.pb.h"

namespace flock::agent {

struct KernelRecord {
  std::int64_t sequence = -1;
  device::v1::LogLine line;
};
// "6,339,5140900,-;text\n KEY=value\n"; `booted_ms`: when the kernel's clock was 0. Nothing when it
// is no record.
bool parse_kernel_record(std::string_view text, std::int64_t booted_ms, KernelRecord& out);

class KernelLog {
 public:
  // Throws Error{kUnavailable}. Gives the messages from `first_sequence` on.
  KernelLog(const std::string& path, std::int64_t first_sequence);
  // False when there are no more now. Numbers that are left out: the kernel's ring went over them.
  bool read(KernelRecord& out);
  int descriptor() const { return file_.get(); }

 private:
  FileDescriptor file_;
  std::string path_;
  std::int64_t first_;
};

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
// Small files that must survive power loss.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace flock {

// Nothing when the file does not exist. Throws Error{kTooLarge} past `limit`, Error{kUnavailable}
// when unreadable.
std::optional<std::string> read_file(const std::string& path, std::size_t limit = 1 << 20);

// Temporary file beside it, fsync, rename, fsync of the folder: readers see the old or the new
// content, never a part. Throws Error{kUnavailable} (disk full, read-only, ...) and leaves the old
// content.
void write_file_atomic(const std::string& path, std::string_view content, mode_t mode = 0600);

// A secret from a file; trailing newlines are not part of it. Throws when missing or empty.
std::string read_secret_file(const std::string& path);

}  // namespace flock

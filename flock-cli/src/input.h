// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "command.h"

namespace flock::cli {

// A file's content; "-" is standard input.
std::string read_input(const std::string& path, std::size_t limit = 1 << 20);
// Without the white space at its end.
std::string trimmed(std::string text);
// Asks on a terminal before something is lost, unless --yes; throws when the answer is no.
void confirm(const Session& session, const std::string& question);
// The same for `count` devices at once: off a terminal only --yes lets it through.
void confirm_many(const Session& session, const std::string& what, std::size_t count);
// A whole number from `least` on; throws Error{kInvalidArgument} naming `flag`.
std::int64_t number(const std::string& flag, const std::string& text, std::int64_t least);
// "a, b,c" taken apart; empty parts are left out.
std::vector<std::string> split(const std::string& text, char separator = ',');

}  // namespace flock::cli

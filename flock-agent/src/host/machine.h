// SPDX-License-Identifier: Apache-2.0
// What can be done to the machine itself. `root` as for HostMeter.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "async/task.h"
#include "base/time.h"

namespace flock::agent {

// The kernel's id of this boot.
std::string read_boot_id(const std::string& root = "");
// When this boot began by the present clock; nothing when the kernel does not tell.
std::optional<TimePoint> read_boot_time(const std::string& root = "");

// How many processes the kernel has ended since boot because memory ran out; nothing when it does
// not count them.
std::optional<std::int64_t> read_oom_kills(const std::string& root = "");

// A lamp whose blinking can be set.
struct Light {
  std::string name, file, usual_trigger;
  // False when the kernel refuses.
  bool set(const std::string& trigger) const;
};
// The board's own lamp rather than one of a keyboard; nothing without one that can beat.
std::optional<Light> find_light(const std::string& root = "");

// A line on the machine's console; false when there is none that can be written to.
bool write_on_console(const std::string& line, const std::string& root = "");

// Throws Error{kUnavailable} saying why it failed; {kTimeout} after `limit`, when the program is
// ended.
Task<void> run_to_the_end(std::vector<std::string> words, Duration limit);

// Unmaps the code that this process has used so far, which is mostly that of its start:
// configuration, registration, handshakes. What is used again is mapped again from the page cache.
void forget_used_code();

// Lets the init system end everything in order; where there is none, the kernel starts the machine
// again at once. Returns when it was asked; throws kUnavailable when it was refused. `command` in
// place of both, if it is not empty.
Task<void> restart_machine(std::vector<std::string> command);
// The same, then waits for the end. Throws kUnavailable when the machine still runs after `limit`.
Task<void> go_down(std::vector<std::string> command, Duration limit);

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
// What can be done to the machine itself. `root` as for HostMeter.
#pragma once

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

// Lets the init system end everything in order; where there is none, the kernel starts the machine
// again at once. Returns when it was asked; throws kUnavailable when it was refused. `command` in
// place of both, if it is not empty.
Task<void> restart_machine(std::vector<std::string> command);

}  // namespace flock::agent

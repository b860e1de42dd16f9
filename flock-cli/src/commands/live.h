// SPDX-License-Identifier: Apache-2.0
// What the commands of live data share.
#pragma once

#include <string>
#include <vector>

#include "command.h"

namespace flock::cli {

// "?a=b&c=d"; an empty value adds nothing.
class Query {
 public:
  explicit Query(std::string text = "") : text_(std::move(text)) {}
  void add(const std::string& name, const std::string& value);
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// Which devices and fleets are meant: the words, --fleet, -l, --filter, --all, or the default
// fleet. Throws when none are.
void add_sources(Session& session, Query& query);
// "10m" is ten minutes ago for the API: "-10m". Anything else as it is.
std::string instant(const std::string& flag, const std::string& text);
// "412M", "1.5G": 1024 each.
std::string bytes_text(double bytes);
// "3h", "12d".
std::string span_text(double seconds);

std::vector<Verb> device_live_verbs();     // top, events, metrics
std::vector<Verb> device_command_verbs();  // restart, reboot, identify, purge, commands, cancel
int show_device(Session& session);

}  // namespace flock::cli

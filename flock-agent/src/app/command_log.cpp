// SPDX-License-Identifier: Apache-2.0
#include "app/command_log.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>

#include "base/bytes.h"
#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"

namespace flock::agent {
namespace {

namespace bj = boost::json;
using device::v1::CommandResult;

constexpr std::size_t kKept = 64;

CommandResult::State state_of(std::int64_t number) {
  if (number < 0 || number > 100 ||
      !device::v1::CommandResult_State_IsValid(static_cast<int>(number)))
    throw Error(Code::kCorrupt, "an unknown state");
  return static_cast<CommandResult::State>(number);
}

CommandEntry read_entry(const bj::value& value) {
  json::Reader in(value);
  CommandEntry out;
  out.id = in.string("id");
  const std::string command = in.string("command", {.min = 0, .max = 65536});
  out.state = state_of(in.integer("state", {}));
  out.told = state_of(in.integer("told", {}));
  out.message = in.string("message", {.min = 0, .max = 10'000});
  out.boot_id = in.string("boot_id", {.min = 0, .max = 100});
  out.emptied = in.optional_boolean("emptied").value_or(false);
  in.finish();
  const auto bytes = from_base64(command);
  if (!bytes || !out.command.ParseFromString(*bytes))
    throw Error(Code::kCorrupt, "an unreadable command");
  return out;
}

}  // namespace

bool CommandEntry::ended() const {
  return state == CommandResult::DONE || state == CommandResult::FAILED ||
         state == CommandResult::EXPIRED;
}

void CommandLog::load() {
  entries_.clear();
  try {
    const auto text = read_file(path_);
    if (!text) return;
    const bj::value value = json::parse(*text);
    if (!value.is_array()) throw Error(Code::kCorrupt, "not a list");
    for (const bj::value& item : value.get_array()) entries_.push_back(read_entry(item));
  } catch (const Error& error) {
    log::error("the list of past commands is damaged; it is moved aside", error, {{"file", path_}});
    std::rename(path_.c_str(), (path_ + ".corrupt").c_str());
    entries_.clear();
  }
}

void CommandLog::save() const {
  bj::array list;
  for (const CommandEntry& entry : entries_)
    list.push_back(bj::object{{"id", entry.id},
                              {"command", to_base64(entry.command.SerializeAsString())},
                              {"state", static_cast<int>(entry.state)},
                              {"told", static_cast<int>(entry.told)},
                              {"message", entry.message},
                              {"boot_id", entry.boot_id},
                              {"emptied", entry.emptied}});
  write_file_atomic(path_, bj::serialize(list));
}

CommandEntry* CommandLog::find(const std::string& id) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const CommandEntry& entry) { return entry.id == id; });
  return found == entries_.end() ? nullptr : &*found;
}

CommandEntry& CommandLog::add(CommandEntry entry) {
  // Only from the front: that leaves references to the others as they are.
  while (entries_.size() >= kKept && entries_.front().ended() &&
         entries_.front().told == entries_.front().state)
    entries_.pop_front();
  entries_.push_back(std::move(entry));
  return entries_.back();
}

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
// Private to this room: the messages of one kind, in memory, on their way and on disk.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "async/backoff.h"
#include "async/event.h"
#include "link/uplink.h"
#include "spool/spool.h"

namespace flock::agent {

struct Item {
  std::string payload;
  std::shared_ptr<Event> safe;  // null: nobody waits
};

// A message that was published and is not acknowledged yet.
struct Flight {
  std::string payload;  // empty while it is in memory, too
  bool on_disk = true;
  bool arrived = false;
  bool dropped = false;  // its place on the disk was needed meanwhile, or there was none
};

struct Channel {
  Channel(Executor executor, Upward k) : kind(k), wake(std::move(executor)) {}

  bool has_backlog() const { return spool != nullptr && !spool->empty(); }
  void push(Item item) {
    memory_bytes += item.payload.size();
    memory.push_back(std::move(item));
  }
  Item pop() {
    Item first = std::move(memory.front());
    memory.pop_front();
    memory_bytes -= first.payload.size();
    return first;
  }
  // Who waits for what is on disk need not wait for the broker.
  void release() {
    for (const auto& safe : held) safe->set();
    held.clear();
  }

  const Upward kind;
  Spool* spool = nullptr;   // none: the disk could not be used yet
  std::deque<Item> memory;  // behind what is on disk
  std::size_t memory_bytes = 0;
  std::vector<Flight> flights;  // the oldest messages
  std::size_t flying = 0;       // of them, without an answer yet
  bool first_flies = false;     // the flight is the first in memory
  SteadyPoint flown_at{};
  std::vector<std::shared_ptr<Event>> held;  // of what is on disk, while there is a connection
  SteadyPoint send_at{};                     // not before
  Backoff backoff{Duration(1'000), Duration(60'000)};
  bool waited = false;  // what is on disk is late
  Event wake;
};

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
// What happens to devices and rollouts, as the internal bus tells it: the recent past in a ring,
// and those who follow it. Each replica of the API hears everything and keeps its own ring.
#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "async/event.h"
#include "async/scope.h"
#include "targets/target.h"

namespace flock::targets::api {

struct ResourceEvent {
  std::uint64_t number = 0;         // from 1, in the order of arrival
  std::string org, fleet, subject;  // subject: the device's or rollout's id. A gap concerns all: ""
  std::string type;                 // "device.online", or "gap"
  std::string data;                 // JSON
  SteadyPoint at;
};

class EventHub {
 public:
  explicit EventHub(const Parts& parts);
  Task<void> start();
  Task<void> stop();

  // Somebody's place in the stream. The hub outlives it.
  class Follower {
   public:
    // After the event `id` names; nothing: from now on. An id that is not known, or too old, shows
    // as a gap.
    Follower(EventHub& hub, const std::optional<std::string>& id);
    ~Follower();
    Follower(const Follower&) = delete;
    Follower& operator=(const Follower&) = delete;
    // What came since the last call, at most a few hundred, waiting up to `limit` for the first. Of
    // what the ring has dropped meanwhile there is one event "gap".
    Task<std::vector<ResourceEvent>> next(Duration limit);

   private:
    friend class EventHub;
    EventHub& hub_;
    Event arrival_;
    std::uint64_t seen_ = 0;
    bool lost_ = false;  // from an id that is not known
  };
  // What `id:` says on the wire.
  std::string id_of(std::uint64_t number) const;

 private:
  struct Heard;
  struct Place {
    std::string fleet, name;
    SteadyPoint until;
  };
  struct Incoming {
    std::string leaf, payload;
  };
  void hear(mqtt::Delivery delivery);
  bool is_idle() const;
  bool comes_late(const std::string& device, std::int64_t seq);
  Task<void> work();
  Task<void> take(std::deque<Incoming> batch);
  Task<void> find_places(const std::vector<Heard>& batch);
  void append(ResourceEvent event);
  void append_gap(const char* reason);
  void wake();
  void note_reconnect();

  const Parts parts_;
  const std::string epoch_;
  TaskScope scope_;
  Event arrival_;
  std::deque<Incoming> incoming_;
  bool overrun_ = false;
  std::deque<ResourceEvent> ring_;
  std::size_t ring_bytes_ = 0;
  std::uint64_t last_ = 0;
  std::set<Follower*> followers_;
  SteadyPoint left_;  // when the last follower went
  std::uint64_t connections_ = 0;
  struct Newest {
    std::int64_t seq = 0;
    SteadyPoint at;
  };
  std::unordered_map<std::string, Newest> newest_;  // reports, by device
  // Of devices and rollouts, by id; as long as a revoked key may live on, and no longer.
  std::unordered_map<std::string, Place> places_;
};

}  // namespace flock::targets::api

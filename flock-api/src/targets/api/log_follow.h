// SPDX-License-Identifier: Apache-2.0
// Logs as they arrive: nothing is lost and nothing comes twice, also over a break.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>

#include "stores/time_series/time_series.h"

namespace flock::targets::api {

// What a reader was given lately. Several ingesters write, each at its own pace, so a row may show
// up after others that arrived later; the last seconds are read again and told apart by this.
class Delivered {
 public:
  // False when the row was given before.
  bool add(const stores::LogRow& row, std::uint64_t number);
  // Forgets what was given after `number`: the reader has not seen it.
  void rewind(std::uint64_t number);
  // Forgets what arrived before this, in Unix ms.
  void trim(std::int64_t before_ms);

 private:
  struct Entry {
    std::int64_t received_ms = 0;
    std::uint64_t key = 0;
  };
  std::unordered_map<std::uint64_t, std::uint64_t> numbers_;  // by the row's key
  std::deque<Entry> order_;
};

// The state of streams whose reader may come back; by a name that stands in their event ids.
class Follows {
 public:
  struct Follow {
    Delivered delivered;
    std::int64_t used_ms = 0;
  };
  // A place of "name.number.received".
  struct Place {
    std::string name;
    std::uint64_t number = 0;
    std::int64_t received_ms = 0;
  };
  static std::string id_of(const Place& place);
  // Throws kInvalidArgument.
  static Place parse(const std::string& id);

  std::shared_ptr<Follow> make(const std::string& name, std::int64_t now_ms);
  // A copy of what is known of the stream; null when that is forgotten.
  std::shared_ptr<Follow> resume(const Place& place, const std::string& new_name,
                                 std::int64_t now_ms);

 private:
  void forget_old(std::int64_t now_ms);
  std::map<std::string, std::shared_ptr<Follow>> known_;
};

}  // namespace flock::targets::api

// SPDX-License-Identifier: Apache-2.0
#include "targets/api/log_follow.h"

#include <charconv>
#include <functional>

#include "base/error.h"

namespace flock::targets::api {
namespace {

constexpr std::size_t kMostRows = 200'000, kMostFollows = 500;
constexpr std::int64_t kKeepMs = 120'000;

// A line's identity (docs: LogStream in device.proto).
std::uint64_t key_of(const stores::LogRow& row) {
  std::string text = row.origin.device + '\n' + row.origin.service + '\n';
  text += std::to_string(row.epoch) + '\n' + std::to_string(row.number) + '\n';
  text += std::to_string(row.gap);
  return std::hash<std::string>()(text);
}

template <class Number>
bool take_number(std::string_view& text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

}  // namespace

bool Delivered::add(const stores::LogRow& row, std::uint64_t number) {
  const std::uint64_t key = key_of(row);
  if (!numbers_.emplace(key, number).second) return false;
  order_.push_back({row.received_ms, key});
  if (order_.size() > kMostRows) {
    numbers_.erase(order_.front().key);
    order_.pop_front();
  }
  return true;
}

void Delivered::rewind(std::uint64_t number) {
  std::deque<Entry> kept;
  for (const Entry& entry : order_) {
    if (numbers_.at(entry.key) <= number)
      kept.push_back(entry);
    else
      numbers_.erase(entry.key);
  }
  order_ = std::move(kept);
  for (auto& [key, given] : numbers_) given = 0;  // in a stream of its own now
}

void Delivered::trim(std::int64_t before_ms) {
  while (!order_.empty() && order_.front().received_ms < before_ms) {
    numbers_.erase(order_.front().key);
    order_.pop_front();
  }
}

std::string Follows::id_of(const Place& place) {
  return place.name + "." + std::to_string(place.number) + "." + std::to_string(place.received_ms);
}

Follows::Place Follows::parse(const std::string& id) {
  Place place;
  std::string_view rest = id;
  const std::size_t dot = rest.find('.');
  place.name = rest.substr(0, dot);
  rest.remove_prefix(dot == std::string_view::npos ? rest.size() : dot + 1);
  bool good = take_number(rest, place.number) && rest.starts_with('.');
  if (good) rest.remove_prefix(1);
  good = good && take_number(rest, place.received_ms) && rest.empty() && place.received_ms >= 0;
  if (!good)
    throw Error(Code::kInvalidArgument, "Last-Event-ID is not one of ours")
        .hint("leave it away, and say `from` instead");
  return place;
}

std::shared_ptr<Follows::Follow> Follows::make(const std::string& name, std::int64_t now_ms) {
  forget_old(now_ms);
  auto follow = std::make_shared<Follow>();
  follow->used_ms = now_ms;
  known_[name] = follow;
  return follow;
}

std::shared_ptr<Follows::Follow> Follows::resume(const Place& place, const std::string& new_name,
                                                 std::int64_t now_ms) {
  const auto found = known_.find(place.name);
  if (found == known_.end()) return nullptr;
  const auto before = found->second;
  auto follow = make(new_name, now_ms);
  follow->delivered = before->delivered;
  follow->delivered.rewind(place.number);
  return follow;
}

void Follows::forget_old(std::int64_t now_ms) {
  for (auto at = known_.begin(); at != known_.end();) {
    const bool unused = at->second.use_count() == 1;
    const bool old = at->second->used_ms < now_ms - kKeepMs || known_.size() > kMostFollows;
    at = unused && old ? known_.erase(at) : std::next(at);
  }
}

}  // namespace flock::targets::api

// SPDX-License-Identifier: Apache-2.0
#include "targets/api/event_hub.h"

#include <algorithm>
#include <charconv>

#include "async/loop.h"
#include "base/log.h"
#include "net/sse.h"
#include "stores/postgres/live_statements.h"
#include "targets/api/devices.h"

namespace flock::targets::api {
namespace {

constexpr std::string_view kPrefix = "flock/internal/v1/";
constexpr std::size_t kRingEvents = 10'000, kRingBytes = 16 << 20;
constexpr Duration kRingTime{300'000};
constexpr std::size_t kMostIncoming = 50'000, kBatch = 500, kMostPlaces = 100'000;
constexpr Duration kPlaceTime{5000}, kAgain{500}, kLook{1000}, kLate{10'000};

bj::object exit_of(const internal::v1::ServiceExited& event) {
  bj::object out{{"service", event.service()}};
  out["exit"] = exit_json(event.exit());
  return out;
}

std::string gap_data(const char* reason) {
  return bj::serialize(bj::object{{"type", "gap"}, {"reason", reason}});
}

bj::object command_of(const internal::v1::CommandResulted& event) {
  bj::object out{{"command_id", event.result().command_id()},
                 {"state", command_state(event.result().state())}};
  if (!event.result().message().empty()) out["message"] = event.result().message();
  return out;
}

}  // namespace

// An event before it is known whose it is.
struct EventHub::Heard {
  std::string org, subject, type;
  std::int64_t at_ms = 0;
  bj::object detail;
  bool is_rollout() const { return type.starts_with("rollout."); }
};

namespace {

template <class Message>
bool read(const std::string& payload, Message& message) {
  return message.ParseFromString(payload);
}

}  // namespace

EventHub::EventHub(const Parts& parts)
    : parts_(parts),
      epoch_(std::to_string(to_unix_ms(system_clock().now()))),
      scope_(parts.executor),
      arrival_(parts.executor),
      left_(std::chrono::steady_clock::now() - kRingTime) {
  end_with(scope_, parts.failed);
}

Task<void> EventHub::start() {
  connections_ = parts_.connections ? parts_.connections() : 0;
  for (const char* what : {"device/#", "rollout/#"}) {
    mqtt::Subscription subscription;
    subscription.filter = std::string(kPrefix) + what;
    co_await parts_.bus.subscribe(subscription,
                                  [this](mqtt::Delivery delivery) { hear(std::move(delivery)); });
  }
  scope_.spawn("events", work());
}

Task<void> EventHub::stop() {
  scope_.cancel();
  co_await scope_.join();
}

// Nobody follows, and nobody who did would come back: then nothing is looked up or kept.
bool EventHub::is_idle() const {
  return followers_.empty() && std::chrono::steady_clock::now() - left_ > kRingTime;
}

void EventHub::hear(mqtt::Delivery delivery) {
  delivery.ack();  // a ring in memory is as durable as it gets
  if (is_idle()) {
    if (ring_.empty()) return;
    ring_.clear();
    ring_bytes_ = 0;
    ++last_;  // an id of before must not seem to be the newest
    return;
  }
  if (incoming_.size() >= kMostIncoming) {
    incoming_.clear();
    overrun_ = true;
  }
  incoming_.push_back(
      {delivery.message.topic.substr(kPrefix.size()), std::move(delivery.message.payload)});
  arrival_.set();
}

Task<void> EventHub::work() {
  for (;;) {
    arrival_.reset();
    if (incoming_.empty()) co_await arrival_.wait_for(kLook);
    note_reconnect();
    if (std::exchange(overrun_, false)) append_gap("too much happened at once");
    if (incoming_.empty()) continue;
    std::deque<Incoming> batch;
    while (!incoming_.empty() && batch.size() < kBatch) {
      batch.push_back(std::move(incoming_.front()));
      incoming_.pop_front();
    }
    co_await take(std::move(batch));
    wake();
  }
}

// A session that outlived the break has lost nothing; whether it did is not known here.
void EventHub::note_reconnect() {
  const std::uint64_t now = parts_.connections ? parts_.connections() : connections_;
  if (now == connections_) return;
  connections_ = now;
  append_gap("the connection to the broker was lost");
  wake();
}

Task<void> EventHub::take(std::deque<Incoming> batch) {
  std::vector<Heard> heard;
  const auto add = [&](const auto& message, const std::string& subject, std::string type,
                       std::int64_t at_ms, bj::object detail) {
    heard.push_back({message.org_id(), subject, std::move(type), at_ms, std::move(detail)});
  };
  const std::int64_t now = to_unix_ms(system_clock().now());
  for (const auto& [leaf, payload] : batch) {
    if (internal::v1::DeviceStateChanged m; leaf == "device/state" && read(payload, m)) {
      if (comes_late(m.device_id(), m.state().seq())) continue;
      add(m, m.device_id(), "device.state_changed", now, {{"reported", reported_json(m.state())}});
    } else if (internal::v1::DevicePresence p; leaf == "device/presence" && read(payload, p)) {
      add(p, p.device_id(), p.online() ? "device.online" : "device.offline", p.at_ms(),
          {{"reason", p.reason()}});
    } else if (internal::v1::ServiceExited e; leaf == "device/service_exited" && read(payload, e)) {
      add(e, e.device_id(), "device.service_exited", e.exit().at_ms(), exit_of(e));
    } else if (internal::v1::CommandResulted c; leaf == "device/command" && read(payload, c)) {
      add(c, c.device_id(), "device.command", c.at_ms(), command_of(c));
    } else if (internal::v1::DeviceMembership r;
               (leaf == "device/registered" || leaf == "device/removed") && read(payload, r)) {
      bj::object detail;
      if (!r.reason().empty()) detail["reason"] = r.reason();
      add(r, r.device_id(), "device." + leaf.substr(7), r.at_ms(), std::move(detail));
    } else if (internal::v1::DeviceRevoked v; leaf == "device/revoked" && read(payload, v)) {
      add(v, v.device_id(), "device.revoked", v.at_ms(), {});
    } else if (internal::v1::CloneSuspected s;
               leaf == "device/clone_suspected" && read(payload, s)) {
      add(s, s.device_id(), "device.clone_suspected", s.at_ms(), {});
    } else if (internal::v1::RolloutChanged o; leaf == "rollout/changed" && read(payload, o)) {
      add(o, o.rollout_id(), "rollout.changed", now, {});
    }
  }
  for (bool found = false; !found;) {
    try {
      co_await find_places(heard);
      found = true;
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      log::warn("events wait for the database", error, {{"events", heard.size()}});
    }
    if (!found) co_await sleep_for(kAgain);
  }
  for (Heard& event : heard) {
    const auto place = places_.find(event.subject);
    if (place == places_.end()) continue;  // not there any more
    bj::object data{{"type", event.type}, {"at", to_rfc3339(device_time(event.at_ms))}};
    bj::object named{{"id", event.subject}};
    if (!event.is_rollout()) named["name"] = place->second.name;
    data[event.is_rollout() ? "rollout" : "device"] = std::move(named);
    if (!place->second.fleet.empty()) data["fleet_id"] = place->second.fleet;
    for (auto& [key, value] : event.detail) data[key] = std::move(value);
    append({0,
            std::move(event.org),
            place->second.fleet,
            std::move(event.subject),
            std::move(event.type),
            bj::serialize(data),
            {}});
  }
}

// Two ingesters that take two reports at the same time may tell them the other way round. Numbers
// of long ago say nothing: a device may have been made anew.
bool EventHub::comes_late(const std::string& device, std::int64_t seq) {
  const SteadyPoint now = std::chrono::steady_clock::now();
  if (newest_.size() > kMostPlaces) newest_.clear();
  Newest& newest = newest_[device];
  if (seq < newest.seq && now - newest.at < kLate) return true;
  newest = {seq, now};
  return false;
}

// One look-up for all that are not known freshly.
Task<void> EventHub::find_places(const std::vector<Heard>& batch) {
  const SteadyPoint now = std::chrono::steady_clock::now();
  if (places_.size() > kMostPlaces) places_.clear();
  std::vector<std::string> devices, rollouts;
  for (const Heard& event : batch) {
    const auto known = places_.find(event.subject);
    if (!is_uuid(event.subject) || (known != places_.end() && known->second.until > now)) continue;
    (event.is_rollout() ? rollouts : devices).push_back(event.subject);
  }
  const auto look = [&](const char* statement, const std::vector<std::string>& ids) -> Task<void> {
    if (ids.empty()) co_return;
    const auto rows = co_await parts_.db.query(Scope::system(), statement, Params().texts(ids));
    for (const Row& row : rows.rows)
      places_[row.text("id")] = {row.optional_text("fleet_id").value_or(""),
                                 row.optional_text("name").value_or(""), now + kPlaceTime};
  };
  co_await look(sql::kEventDevices, devices);
  co_await look(sql::kEventRollouts, rollouts);
}

void EventHub::append(ResourceEvent event) {
  event.number = ++last_;
  event.at = std::chrono::steady_clock::now();
  ring_bytes_ += event.data.size();
  ring_.push_back(std::move(event));
  while (ring_.size() > kRingEvents || ring_bytes_ > kRingBytes ||
         ring_.front().at < ring_.back().at - kRingTime) {
    ring_bytes_ -= ring_.front().data.size();
    ring_.pop_front();
  }
}

void EventHub::append_gap(const char* reason) {
  append({0, "", "", "", "gap", gap_data(reason), {}});
}

void EventHub::wake() {
  for (Follower* follower : followers_) follower->arrival_.set();
}

std::string EventHub::id_of(std::uint64_t number) const {
  return epoch_ + "-" + std::to_string(number);
}

EventHub::Follower::Follower(EventHub& hub, const std::optional<std::string>& id)
    : hub_(hub), arrival_(hub.parts_.executor), seen_(hub.last_) {
  if (id) {
    // What another replica or an earlier start numbered is not known here.
    const std::string prefix = hub.epoch_ + "-";
    std::uint64_t number = 0;
    const char* const end = id->data() + id->size();
    const bool ours = id->starts_with(prefix) &&
                      std::from_chars(id->data() + prefix.size(), end, number).ptr == end;
    lost_ = !ours || number > hub.last_;
    if (!lost_) seen_ = number;
  }
  hub_.followers_.insert(this);
}

EventHub::Follower::~Follower() {
  hub_.followers_.erase(this);
  hub_.left_ = std::chrono::steady_clock::now();
}

Task<std::vector<ResourceEvent>> EventHub::Follower::next(Duration limit) {
  arrival_.reset();
  if (!lost_ && seen_ == hub_.last_) co_await arrival_.wait_for(limit);
  std::vector<ResourceEvent> out;
  if (!lost_ && seen_ == hub_.last_) co_return out;
  const std::uint64_t first = hub_.ring_.empty() ? hub_.last_ + 1 : hub_.ring_.front().number;
  if (lost_ || seen_ + 1 < first) {
    if (!lost_) seen_ = first - 1;
    lost_ = false;
    out.push_back({seen_, "", "", "", "gap", gap_data("what happened meanwhile is not kept"), {}});
  }
  for (std::size_t at = static_cast<std::size_t>(seen_ + 1 - first);
       at < hub_.ring_.size() && out.size() < kBatch; ++at) {
    out.push_back(hub_.ring_[at]);
    seen_ = hub_.ring_[at].number;
  }
  co_return out;
}

}  // namespace flock::targets::api

// SPDX-License-Identifier: Apache-2.0
// Takes what devices send: live state first, then an internal message when something changed, then
// the acknowledgement. So nothing is acknowledged that a kill could lose.
#include <boost/json.hpp>
#include <deque>
#include <map>
#include <unordered_map>
#include <unordered_set>

#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "domain/clone.h"
#include "flock/internal/v1/internal.pb.h"
#include "stores/postgres/statements.h"
#include "targets/target.h"

namespace flock::targets {
namespace {

namespace sql = postgres::sql;
using postgres::Params;
using postgres::Scope;

constexpr std::size_t kPayloadLimit = 256 * 1024;
constexpr std::size_t kBatch = 256;
constexpr std::size_t kKnownLimit = 100'000;
constexpr Duration kKnownFor{60'000};
constexpr Duration kStaleAfter{180'000};  // three state keep-alives

struct Known {
  std::string org, fleet;
  SteadyPoint until;
  std::string last;  // the last report without its time and number: to see what changed
  bool online = false;
  domain::BootHistory boots;
};

// "devices/{id}/{leaf}" -> id; "" when it is something else.
std::string device_of(const std::string& topic) {
  if (!topic.starts_with("devices/") || topic.size() < 8 + 36 + 2) return "";
  const std::string id = topic.substr(8, 36);
  return is_uuid(id) && topic[44] == '/' ? id : "";
}

class IngesterTarget final : public Target {
 public:
  explicit IngesterTarget(Parts parts)
      : parts_(std::move(parts)), scope_(parts_.executor), arrival_(parts_.executor) {
    end_with(scope_, parts_.failed);
  }

  Task<void> start() override {
    for (const char* leaf : {"state", "events"}) {
      mqtt::Subscription subscription;
      subscription.filter = std::string("$share/ingester/devices/+/") + leaf;
      co_await parts_.bus.subscribe(subscription, [this](mqtt::Delivery delivery) {
        queue_.push_back(std::move(delivery));
        arrival_.set();
      });
    }
    scope_.spawn("ingest", ingest());
    scope_.spawn("presence", sweep());
  }
  Task<void> drain() override {
    scope_.cancel();
    co_await scope_.join();
  }
  Task<void> stop() override { co_return; }

 private:
  Task<void> ingest() {
    for (;;) {
      while (queue_.empty()) {
        arrival_.reset();
        co_await arrival_.wait();
      }
      std::vector<mqtt::Delivery> batch;
      while (!queue_.empty() && batch.size() < kBatch) {
        batch.push_back(std::move(queue_.front()));
        queue_.pop_front();
      }
      // Repeated until the stores take it; the receive maximum holds the broker back meanwhile.
      for (bool done = false; !done;) {
        try {
          co_await process(batch);
          done = true;
        } catch (const Error& error) {
          if (error.code() == Code::kCancelled) throw;
          log::warn("cannot store what devices sent; trying again", error,
                    {{"messages", batch.size()}});
        }
        if (!done) co_await sleep_for(Duration(1000));
      }
      for (mqtt::Delivery& delivery : batch) delivery.ack();
    }
  }

  Task<void> process(const std::vector<mqtt::Delivery>& batch) {
    std::vector<stores::Report> reports;
    std::vector<device::v1::ReportedState> states;
    for (const mqtt::Delivery& delivery : batch) {
      const mqtt::Message& message = delivery.message;
      const std::string id = device_of(message.topic);
      if (id.empty() || message.payload.size() > kPayloadLimit) {
        log::warn("a device's message was dropped",
                  {{"topic", message.topic}, {"bytes", message.payload.size()}});
        continue;
      }
      if (message.topic.ends_with("/events")) {
        co_await take_event(id, message.payload);
        continue;
      }
      device::v1::ReportedState state;
      if (!state.ParseFromString(message.payload)) {
        log::warn("a device's report cannot be read",
                  {{"device", id}, {"bytes", message.payload.size()}});
        continue;
      }
      co_await watch_for_clone(id, state.boot_id(), state.at_ms());
      reports.push_back({DeviceId::trusted(id), state.seq(), message.payload});
      states.push_back(std::move(state));
    }
    if (reports.empty()) co_return;
    const std::vector<bool> kept = co_await parts_.live.put_reported(reports);
    const std::vector<bool> news = co_await worth_telling(reports, kept);
    for (std::size_t i = 0; i < reports.size(); ++i) {
      if (news[i]) co_await tell(reports[i].device.text(), std::move(states[i]));
    }
  }

  // A report that was not kept is either late, which changes nothing, or the stored one come again
  // because a kill hit between storing and telling: that one must still be told.
  Task<std::vector<bool>> worth_telling(const std::vector<stores::Report>& reports,
                                        std::vector<bool> kept) {
    std::vector<DeviceId> devices;
    for (std::size_t i = 0; i < reports.size(); ++i) {
      if (!kept[i]) devices.push_back(reports[i].device);
    }
    if (devices.empty()) co_return kept;
    const auto stored = co_await parts_.live.get_reported(devices);
    for (std::size_t i = 0, next = 0; i < reports.size(); ++i) {
      if (!kept[i]) kept[i] = stored[next++] == reports[i].value;
    }
    co_return kept;
  }

  // Internal messages go out for changes only, not for keep-alives. The scheduler also rereads the
  // live state.
  Task<void> tell(const std::string& id, device::v1::ReportedState state) {
    Known* known = co_await look_up(id);
    if (known == nullptr) co_return;
    touched_.insert(id);
    if (!known->online) co_await set_online(id, *known, true, state.agent_version(), "connected");
    device::v1::ReportedState shape = state;
    shape.clear_seq();
    shape.clear_at_ms();
    std::string text = shape.SerializeAsString();
    if (text == known->last) co_return;
    internal::v1::DeviceStateChanged changed;
    changed.set_org_id(known->org);
    changed.set_fleet_id(known->fleet);
    changed.set_device_id(id);
    *changed.mutable_state() = std::move(state);
    co_await publish("device/state", changed.SerializeAsString());
    if (Known* still = co_await look_up(id)) still->last = std::move(text);
  }

  Task<void> take_event(const std::string& id, const std::string& payload) {
    device::v1::DeviceEvent event;
    if (!event.ParseFromString(payload)) {
      log::warn("a device's event cannot be read", {{"device", id}, {"bytes", payload.size()}});
      co_return;
    }
    co_await watch_for_clone(id, event.boot_id(), event.at_ms());
    Known* known = co_await look_up(id);
    if (known == nullptr) co_return;
    if (event.kind() == device::v1::DeviceEvent::ONLINE)
      co_await set_online(id, *known, true, "", "connected");
    if (event.kind() == device::v1::DeviceEvent::OFFLINE)
      co_await set_online(id, *known, false, "", "clean_stop");
    if (event.kind() == device::v1::DeviceEvent::LOST)
      co_await set_online(id, *known, false, "", "connection_lost");
  }

  // Looks at every message, those of an older report too: of two machines the one that started
  // later numbers its reports higher for ever.
  Task<void> watch_for_clone(std::string id, std::string boot_id, std::int64_t at_ms) {
    Known* known = co_await look_up(id);
    if (known == nullptr) co_return;
    domain::BootHistory before = known->boots;
    if (!domain::suspect_clone(known->boots, boot_id, at_ms)) co_return;
    const std::string org = known->org;
    try {
      co_await tell_clone(org, id, before.boots.back().id, boot_id);
    } catch (...) {
      // The batch comes again; so must the suspicion.
      if (const auto found = known_.find(id); found != known_.end())
        found->second.boots = std::move(before);
      throw;
    }
  }

  // The event first: what the database remembers keeps it from being told again for an hour.
  Task<void> tell_clone(std::string org, std::string id, std::string one, std::string other) {
    const auto due =
        co_await parts_.db.query(Scope::system(), sql::kCloneDue, Params().text(org).text(id));
    if (due.empty()) co_return;
    internal::v1::CloneSuspected event;
    event.set_org_id(org);
    event.set_device_id(id);
    event.add_boot_ids(one);
    event.add_boot_ids(other);
    event.set_at_ms(to_unix_ms(system_clock().now()));
    co_await publish("device/clone_suspected", event.SerializeAsString());
    const std::string detail =
        boost::json::serialize(boost::json::object{{"boot_ids", {one, other}}});
    co_await parts_.db.query(Scope::system(), sql::kCloneSuspected,
                             Params().text(org).text(id).text(detail));
    log::warn("a device speaks from two machines", {{"device", id}});
  }

  Task<void> set_online(std::string id, Known& known, bool online, std::string agent_version,
                        std::string reason) {
    const std::string org = known.org;
    if (!online) touched_.erase(id);  // it was heard from before it went, not after
    co_await parts_.db.query(Scope::system(), sql::kDeviceOnline,
                             Params().text(org).text(id).boolean(online).text(agent_version));
    known.online = online;
    co_await publish_presence(org, id, online, reason);
  }

  Task<void> publish_presence(std::string org, std::string id, bool online, std::string reason) {
    internal::v1::DevicePresence presence;
    presence.set_org_id(org);
    presence.set_device_id(id);
    presence.set_online(online);
    presence.set_reason(reason);
    presence.set_at_ms(to_unix_ms(system_clock().now()));
    co_await publish("device/presence", presence.SerializeAsString());
  }

  Task<void> publish(std::string topic, std::string payload) {
    mqtt::Message message;
    message.topic = "flock/internal/v1/" + topic;
    message.payload = std::move(payload);
    co_await parts_.bus.publish(std::move(message));
  }

  // Null for a device that is not there any more.
  Task<Known*> look_up(const std::string& id) {
    const SteadyPoint now = std::chrono::steady_clock::now();
    const auto found = known_.find(id);
    if (found != known_.end() && found->second.until > now) co_return &found->second;
    const auto rows =
        co_await parts_.db.query(Scope::system(), sql::kDeviceTenant, Params().text(id));
    if (rows.empty()) {
      known_.erase(id);
      co_return nullptr;
    }
    if (known_.size() >= kKnownLimit) known_.clear();
    Known& known = known_[id];
    known.org = rows.rows.front().text("org_id");
    known.fleet = rows.rows.front().text("fleet_id");
    known.online = rows.rows.front().boolean("online");  // another ingester may have changed it
    known.until = now + kKnownFor;
    co_return &known;
  }

  // Who is heard from stays online; who is not for long enough is offline, even if the broker lost
  // the last will.
  Task<void> sweep() {
    for (;;) {
      co_await sleep_for(parts_.settings.presence_every);
      try {
        const std::vector<std::string> touched(touched_.begin(), touched_.end());
        touched_.clear();
        if (!touched.empty())
          co_await parts_.db.query(Scope::system(), sql::kDeviceTouch, Params().texts(touched));
        const auto stale = co_await parts_.db.query(Scope::system(), sql::kDevicesStale,
                                                    Params().integer(kStaleAfter.count()));
        for (const auto& row : stale.rows) {
          if (const auto found = known_.find(row.text("id")); found != known_.end())
            found->second.online = false;
          co_await publish_presence(row.text("org_id"), row.text("id"), false, "silent");
        }
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        log::warn("the presence sweep failed; it is repeated", error);
      }
    }
  }

  Parts parts_;
  TaskScope scope_;
  Event arrival_;
  std::deque<mqtt::Delivery> queue_;
  std::unordered_map<std::string, Known> known_;
  std::unordered_set<std::string> touched_;  // heard from since the last sweep
};

}  // namespace

std::unique_ptr<Target> make_ingester_target(Parts parts) {
  return std::make_unique<IngesterTarget>(std::move(parts));
}

}  // namespace flock::targets

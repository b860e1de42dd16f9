// SPDX-License-Identifier: Apache-2.0
// What happens to devices and rollouts, as it happens.
#include <algorithm>

#include "net/sse.h"
#include "targets/api/queries.h"
#include "targets/api/streams.h"

namespace flock::targets::api {
namespace {

// Whose events a reader gets.
struct Interest {
  std::string org;
  std::optional<std::vector<std::string>> limit;  // the caller's fleets
  std::vector<std::string> fleets, devices;       // empty: all
  bool wants_devices = false, wants_rollouts = false;

  bool has(const ResourceEvent& event) const {
    if (event.type == "gap") return true;
    const bool rollout = event.type.starts_with("rollout.");
    if (event.org != org || !(rollout ? wants_rollouts : wants_devices)) return false;
    if (limit && !contains(*limit, event.fleet)) return false;
    if (!fleets.empty() && !contains(fleets, event.fleet)) return false;
    return devices.empty() || contains(devices, event.subject);
  }
  static bool contains(const std::vector<std::string>& list, const std::string& id) {
    return std::find(list.begin(), list.end(), id) != list.end();
  }
};

class ResourceStream final : public EventSource {
 public:
  ResourceStream(EventHub& hub, Interest interest, const std::optional<std::string>& after)
      : hub_(hub), interest_(std::move(interest)), follower_(hub, after) {}

  Task<std::string> next(Duration limit, bool&) override {
    std::string text = std::exchange(greeting_, "");
    if (!text.empty()) co_return text;
    const auto events = co_await follower_.next(limit);
    for (const ResourceEvent& event : events) {
      if (interest_.has(event))
        text += net::format_sse({hub_.id_of(event.number), event.type, event.data});
    }
    co_return text;
  }

 private:
  EventHub& hub_;
  Interest interest_;
  EventHub::Follower follower_;
  // So that a reader knows that from here on nothing is missed.
  std::string greeting_ = ": connected\n\n";
};

Task<net::Reply> stream_events(Call& call) {
  allow_query(call.request, {"topics", "fleet", "device"});
  Interest interest{call.org(), call.who.fleets, {}, {}};
  const bool may_rollouts = call.who.permissions.has(Permission::kDeploymentsRead);
  const auto topics = read_list(call.request, "topics", 2);
  for (const std::string& topic : topics) {
    if (topic != "devices" && topic != "rollouts")
      throw Error(Code::kInvalidArgument, "there is no such topic")
          .problems({{"?topics", "invalid", "devices and rollouts are the topics"}});
    if (topic == "rollouts" && !may_rollouts)
      throw Error(Code::kForbidden, "this needs the permission deployments:read");
  }
  const auto wants = [&](const char* topic) {
    return topics.empty() || Interest::contains(topics, topic);
  };
  interest.wants_devices = wants("devices");
  interest.wants_rollouts = may_rollouts && wants("rollouts");
  interest.fleets = co_await find_fleets(call, read_list(call.request, "fleet", kMostNames));
  interest.devices = co_await find_device_ids(call, read_list(call.request, "device", kMostNames));
  if (!interest.devices.empty()) interest.wants_rollouts = false;
  co_return stream_reply(call,
                         std::make_shared<ResourceStream>(call.context.events, std::move(interest),
                                                          last_event_id(call.request)));
}

}  // namespace

void add_event_routes(Context& c) {
  c.add(allowed("followEvents", "GET", "/v1/events", Permission::kDevicesRead), stream_events);
}

}  // namespace flock::targets::api

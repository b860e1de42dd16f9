// SPDX-License-Identifier: Apache-2.0
#include "targets/ingester/state_lane.h"

#include <boost/json.hpp>
#include <charconv>

#include "async/loop.h"
#include "base/error.h"
#include "base/log.h"
#include "flock/internal/v1/internal.pb.h"
#include "services/commands.h"
#include "stores/postgres/device_statements.h"
#include "targets/ingester/publish.h"

namespace flock::targets::ingester {
namespace {

namespace sql = postgres::sql;
using device::v1::DeviceEvent;
using internal::v1::SpooledMessage;
using postgres::Params;
using postgres::Scope;

constexpr std::size_t kBatch = 512, kInboxBytes = 64 << 20;
// What comes within this time shares its round trips.
constexpr Duration kGather{4}, kRetry{1000};
constexpr std::size_t kDetailBytes = 200;

// Short enough for a string without memory of its own.
std::string mark_of(std::uint64_t shape) {
  char digits[16];
  return {digits, std::to_chars(digits, digits + sizeof digits, shape, 36).ptr};
}

// Nearly every message is of the boot that spoke last.
bool speaks_anew(const Device* device, const std::string& boot_id) {
  if (device == nullptr || boot_id.empty()) return false;
  const auto& boots = device->boots.boots;
  return boots.empty() || boots.back().id != boot_id;
}

Source source_of(const Device& device, std::string_view id, std::int64_t now_ms) {
  return {device.org, device.fleet, std::string(id), now_ms};
}

}  // namespace

StateLane::StateLane(Parts& parts, Devices& devices, PresenceBook& presence, SeriesLane& history,
                     Quarantine& quarantine)
    : parts_(parts),
      devices_(devices),
      presence_(presence),
      history_(history),
      quarantine_(quarantine),
      inbox_(parts.executor, kInboxBytes) {}

Task<void> StateLane::run() {
  for (;;) {
    co_await inbox_.wait();
    while (history_.behind()) co_await sleep_for(kRetry);
    if (inbox_.size() < kBatch) co_await sleep_for(kGather);
    Batch batch;
    batch.reserve(kBatch);
    inbox_.pop(batch, kBatch);
    const SteadyPoint began = std::chrono::steady_clock::now();
    Work work;
    // Repeated until the stores take it; the receive maximum holds the broker back meanwhile.
    for (bool done = false; !done;) {
      try {
        work = Work();
        co_await process(batch, work);
        done = true;
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        log::warn("cannot store what devices sent; trying again", error,
                  {{"messages", batch.size()}});
      }
      if (!done) {
        presence_.deaf();
        co_await sleep_for(kRetry);
      }
    }
    meters_.stored.add(static_cast<double>(batch.size()));
    meters_.took(batch.size(), began);
    finish(batch, work);
    if (inbox_.wants_more()) parts_.bus.reconnect();
  }
}

Task<void> StateLane::process(const Batch& batch, Work& work) {
  work.now_ms = to_unix_ms(system_clock().now());
  Uplinks uplinks;
  uplinks.reserve(batch.size());
  for (const mqtt::Delivery& delivery : batch)
    uplinks.push_back(domain::parse_uplink(delivery.message.topic));
  co_await load_devices(uplinks);
  co_await read(batch, uplinks, work);
  co_await put_reports(batch, work);
  std::vector<Heard> heard = std::move(work.heard);
  for (const Turn& turn : co_await presence_.apply(std::move(heard)))
    work.rows.push_back({{turn.org, turn.fleet, turn.device, work.now_ms},
                         SpooledMessage::PRESENCE,
                         payload_of(turn),
                         turn.message});
  co_await services::record_results(parts_.db, std::move(work.results));
  co_await publish_all(parts_.bus, std::move(work.messages));
  co_await parts_.live.mark_told(std::move(work.told));
  co_await quarantine_.put(std::move(work.poison));
}

Task<void> StateLane::load_devices(const Uplinks& uplinks) {
  std::vector<std::string> ids;
  for (const auto& uplink : uplinks) {
    if (!uplink) continue;
    const Device* const known = devices_.find(uplink->device);
    if (known == nullptr || !known->asked) ids.emplace_back(uplink->device);
  }
  if (!ids.empty()) co_await devices_.load(std::move(ids));
}

Task<void> StateLane::read(const Batch& batch, const Uplinks& uplinks, Work& work) {
  work.reports.reserve(batch.size());
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const mqtt::Message& message = batch[i].message;
    std::string fault = "it came on a topic that no device has";
    if (const auto& uplink = uplinks[i]) {
      const std::string_view id = uplink->device;
      const bool report = uplink->leaf == domain::Leaf::kState;
      Device* const device = devices_.find(id);
      fault = report ? read_report(batch[i], i, id, device, work)
                     : read_event(batch[i], i, std::string(id), device, work);
      const std::string& boot = report ? state_.boot_id() : event_.boot_id();
      if (fault.empty() && speaks_anew(device, boot))
        co_await watch_for_clone(std::string(id), boot, report ? state_.at_ms() : event_.at_ms());
    }
    if (!fault.empty())
      work.poison.push_back(make_poison(message.topic, message.payload, std::move(fault)));
  }
}

// `device`: null when it was removed or revoked.
std::string StateLane::read_report(const mqtt::Delivery& delivery, std::size_t index,
                                   std::string_view id, Device* device, Work& work) {
  const std::string& payload = delivery.message.payload;
  std::string fault = domain::read(payload, state_);
  if (!fault.empty()) return fault;
  const auto shape = domain::shape_of(payload);
  if (!shape) return "it is not the message that belongs on this topic";
  if (device == nullptr) return "";
  device->touched = true;
  presence_.heard_of(id);
  work.reports.push_back(
      {index, id, domain::sane_seq(state_.seq(), work.now_ms), *shape, device->presence.online});
  return "";
}

std::string StateLane::read_event(const mqtt::Delivery& delivery, std::size_t index,
                                  const std::string& id, Device* device, Work& work) {
  std::string fault = domain::read(delivery.message.payload, event_);
  if (!fault.empty()) return fault;
  if (device == nullptr) return "";
  const std::int64_t at_ms = domain::MessageTimes(event_.at_ms(), work.now_ms).at(event_.at_ms());
  Heard heard;
  heard.device = id;
  heard.seq = domain::sane_seq(event_.seq(), work.now_ms);
  heard.at_ms = at_ms;
  heard.message = index;
  if (event_.kind() != DeviceEvent::LOST) {
    device->touched = true;
    presence_.heard_of(id);
  }
  switch (event_.kind()) {
    case DeviceEvent::ONLINE:
      heard.sign = domain::Sign::kHello;
      work.heard.push_back(std::move(heard));
      break;
    case DeviceEvent::OFFLINE:
      heard.sign = domain::Sign::kGoodbye;
      work.heard.push_back(std::move(heard));
      break;
    case DeviceEvent::LOST:
      heard.sign = domain::Sign::kLost;
      heard.at_ms = work.now_ms;  // the will was written when the connection began
      if (!presence_.wait_with(heard)) work.heard.push_back(std::move(heard));
      break;
    case DeviceEvent::COMMAND: {
      internal::v1::CommandResulted result;
      result.set_org_id(device->org);
      result.set_device_id(id);
      *result.mutable_result() = event_.command();
      result.set_at_ms(at_ms);
      work.messages.push_back(internal_message("device/command", result.SerializeAsString()));
      work.results.push_back(std::move(result));
      break;
    }
    case DeviceEvent::SERVICE_EXITED: {
      internal::v1::ServiceExited exited;
      exited.set_org_id(device->org);
      exited.set_fleet_id(device->fleet);
      exited.set_device_id(id);
      exited.set_service(event_.service());
      *exited.mutable_exit() = event_.exit();
      exited.set_at_ms(at_ms);
      work.messages.push_back(
          internal_message("device/service_exited", exited.SerializeAsString()));
      break;
    }
    case DeviceEvent::SHUTDOWN: {
      // It is still there; what follows is a goodbye, or silence that is now explained.
      const std::string reason = "shutdown: " + domain::shortened(event_.detail(), kDetailBytes);
      const Turn turn{device->org, device->fleet, id, reason, true, at_ms, index};
      work.rows.push_back(
          {source_of(*device, id, work.now_ms), SpooledMessage::PRESENCE, payload_of(turn), index});
      break;
    }
    default:
      break;  // a kind of a later version
  }
  return "";
}

Task<void> StateLane::put_reports(const Batch& batch, Work& work) {
  std::vector<stores::Report> reports;
  reports.reserve(work.reports.size());
  for (const Report& report : work.reports)
    reports.push_back({DeviceId::trusted(std::string(report.device)), report.seq,
                       batch[report.message].message.payload});
  const SteadyPoint began = std::chrono::steady_clock::now();
  const std::vector<stores::Put> put = co_await parts_.live.put_reported(std::move(reports));
  writes_.observe(Meters::seconds_since(began));
  // Of two reports of one device the second is compared with the first.
  std::unordered_map<std::string_view, std::string> told;
  for (std::size_t i = 0; i < put.size(); ++i) {
    const Report& report = work.reports[i];
    if (!put[i].stands) continue;
    const std::string mark = mark_of(report.shape);
    const auto before = told.empty() ? told.end() : told.find(report.device);
    const bool changed = (before != told.end() ? before->second : put[i].told) != mark;
    if (!changed && report.online) continue;
    Device* const device = devices_.find(report.device);
    if (device == nullptr) continue;
    if (changed) {
      told.insert_or_assign(report.device, mark);
      work.told.push_back({DeviceId::trusted(std::string(report.device)), mark});
      take_change(batch, report, *device, work);
    } else if (!device->presence.online) {
      work.heard.push_back({std::string(report.device), domain::Sign::kReport, report.seq,
                            work.now_ms, "", Duration(0), report.message});
    }
  }
}

// Internal messages go out for changes only, not for keep-alives. The scheduler also rereads the
// live state.
void StateLane::take_change(const Batch& batch, const Report& report, Device& device, Work& work) {
  internal::v1::DeviceStateChanged changed;
  device::v1::ReportedState& state = *changed.mutable_state();
  const std::string& payload = batch[report.message].message.payload;
  if (!state.ParseFromString(payload)) return;  // it could be read before
  const std::uint64_t step = step_of(state);
  if (std::exchange(device.step, step) != step)
    work.rows.push_back({source_of(device, report.device, work.now_ms), SpooledMessage::UPDATE,
                         payload, report.message});
  const Duration silent_after = domain::silent_after(Duration(state.keep_alive_ms()));
  if (!device.presence.online || device.agent_version != state.agent_version() ||
      device.silent_after != silent_after)
    work.heard.push_back({std::string(report.device), domain::Sign::kReport, report.seq,
                          work.now_ms, domain::shortened(state.agent_version(), kDetailBytes),
                          silent_after, report.message});
  changed.set_org_id(device.org);
  changed.set_fleet_id(device.fleet);
  changed.set_device_id(std::string(report.device));
  changed.set_at_ms(domain::MessageTimes(state.at_ms(), work.now_ms).at(state.at_ms()));
  work.messages.push_back(internal_message("device/state", changed.SerializeAsString()));
}

void StateLane::finish(Batch& batch, Work& work) {
  for (const mqtt::Delivery& delivery : batch) inbox_.finished(Inbox::size_of(delivery));
  // The history keeps its order, so that a message's last row is kept when all are.
  std::vector<bool> given(batch.size(), false);
  for (std::size_t i = work.rows.size(); i-- > 0;) {
    Work::Row& row = work.rows[i];
    if (given[row.message]) continue;
    given[row.message] = true;
    row.delivery = std::move(batch[row.message]);
  }
  for (Work::Row& row : work.rows)
    history_.add(std::move(row.source), row.kind, std::move(row.payload), std::move(row.delivery));
  for (std::size_t i = 0; i < batch.size(); ++i) {
    if (!given[i]) batch[i].ack();
  }
}

void StateLane::remember(const Turn& turn) {
  history_.add({turn.org, turn.fleet, turn.device, turn.at_ms}, SpooledMessage::PRESENCE,
               payload_of(turn), std::nullopt);
}

// --- Clones
// ---------------------------------------------------------------------------------------

// Looks at every message, those of an older report too: of two machines the one that started
// later numbers its reports higher for ever.
Task<void> StateLane::watch_for_clone(std::string id, std::string boot_id, std::int64_t at_ms) {
  Device* const device = devices_.find(id);
  if (device == nullptr) co_return;
  domain::BootHistory before = device->boots;
  if (!domain::suspect_clone(device->boots, boot_id, at_ms)) co_return;
  const std::string org = device->org;
  try {
    co_await tell_clone(org, id, before.boots.back().id, boot_id);
  } catch (...) {
    // The batch comes again; so must the suspicion.
    if (Device* const still = devices_.find(id)) still->boots = std::move(before);
    throw;
  }
}

// The event first: what the database remembers keeps it from being told again for an hour.
Task<void> StateLane::tell_clone(std::string org, std::string id, std::string one,
                                 std::string other) {
  const auto due =
      co_await parts_.db.query(Scope::system(), sql::kCloneDue, Params().text(org).text(id));
  if (due.empty()) co_return;
  internal::v1::CloneSuspected event;
  event.set_org_id(org);
  event.set_device_id(id);
  event.add_boot_ids(one);
  event.add_boot_ids(other);
  event.set_at_ms(to_unix_ms(system_clock().now()));
  std::vector<mqtt::Message> messages;
  messages.push_back(internal_message("device/clone_suspected", event.SerializeAsString()));
  co_await publish_all(parts_.bus, std::move(messages));
  const std::string detail =
      boost::json::serialize(boost::json::object{{"boot_ids", {one, other}}});
  co_await parts_.db.query(Scope::system(), sql::kCloneSuspected,
                           Params().text(org).text(id).text(detail));
  log::warn("a device speaks from two machines", {{"device", id}});
}

}  // namespace flock::targets::ingester

// SPDX-License-Identifier: Apache-2.0
#include "domain/customer_events.h"

#include <algorithm>
#include <boost/json.hpp>

#include "base/error.h"
#include "base/id.h"
#include "base/json.h"
#include "base/time.h"
#include "crypto/keys.h"
#include "domain/device_json.h"
#include "flock/internal/v1/internal.pb.h"

namespace flock::domain {
namespace {

namespace bj = boost::json;
namespace in = internal::v1;
using About = InternalEvent::About;

[[noreturn]] void refuse(std::string why) { throw Error(Code::kInvalidArgument, std::move(why)); }

template <class Message>
Message parse(std::string_view payload) {
  Message message;
  if (!message.ParseFromArray(payload.data(), static_cast<int>(payload.size())))
    refuse("it is not the message that belongs on this topic");
  return message;
}

// An event whose data is still in the making.
struct Draft : InternalEvent {
  bj::object said;
};

template <class Message>
Draft of_device(const Message& message, std::string type, std::int64_t at_ms) {
  Draft event;
  event.type = std::move(type);
  event.org = message.org_id();
  event.subject = message.device_id();
  event.at_ms = at_ms;
  return event;
}

Draft read_state(std::string_view payload) {
  const auto message = parse<in::DeviceStateChanged>(payload);
  // An ingester of before `at_ms` existed.
  const std::int64_t at_ms = message.at_ms() != 0 ? message.at_ms() : message.state().at_ms();
  Draft event = of_device(message, "device.state_changed", at_ms);
  event.said["reported"] = reported_json(message.state());
  return event;
}

Draft read_presence(std::string_view payload) {
  const auto message = parse<in::DevicePresence>(payload);
  Draft event =
      of_device(message, message.online() ? "device.online" : "device.offline", message.at_ms());
  event.said["reason"] = message.reason();
  return event;
}

Draft read_exit(std::string_view payload) {
  const auto message = parse<in::ServiceExited>(payload);
  const std::int64_t at_ms = message.at_ms() != 0 ? message.at_ms() : message.exit().at_ms();
  Draft event = of_device(message, "device.service_exited", at_ms);
  event.said["service"] = message.service();
  event.said["exit"] = exit_json(message.exit());
  return event;
}

Draft read_command(std::string_view payload) {
  using Result = device::v1::CommandResult;
  const auto message = parse<in::CommandResulted>(payload);
  const char* type = nullptr;
  switch (message.result().state()) {
    case Result::STARTED:
      type = "command.started";
      break;
    case Result::DONE:
      type = "command.done";
      break;
    case Result::FAILED:
      type = "command.failed";
      break;
    case Result::EXPIRED:
      type = "command.expired";
      break;
    default:
      refuse("a command has no such state");
  }
  if (!is_uuid(message.result().command_id())) refuse("it names no command");
  Draft event = of_device(message, type, message.at_ms());
  bj::object command{{"id", message.result().command_id()}};
  if (!message.result().message().empty()) command["message"] = message.result().message();
  event.said["command"] = std::move(command);
  return event;
}

Draft read_registered(std::string_view payload) {
  const auto message = parse<in::DeviceMembership>(payload);
  return of_device(message, "device.registered", message.at_ms());
}

Draft read_removed(std::string_view payload) {
  const auto message = parse<in::DeviceMembership>(payload);
  Draft event = of_device(message, "device.deregistered", message.at_ms());
  event.said["reason"] = message.reason();
  return event;
}

Draft read_revoked(std::string_view payload) {
  const auto message = parse<in::DeviceRevoked>(payload);
  return of_device(message, "device.revoked", message.at_ms());
}

Draft read_clone(std::string_view payload) {
  const auto message = parse<in::CloneSuspected>(payload);
  Draft event = of_device(message, "device.clone_suspected", message.at_ms());
  bj::array boots;
  for (const std::string& boot : message.boot_ids()) boots.emplace_back(boot);
  event.said["boot_ids"] = std::move(boots);
  return event;
}

Draft read_deployment(std::string_view payload) {
  const auto message = parse<in::DeploymentCreated>(payload);
  Draft event;
  event.type = "deployment.created";
  event.about = About::kDeployment;
  event.org = message.org_id();
  event.subject = message.deployment_id();
  event.at_ms = message.at_ms();
  return event;
}

// What a step made of a rollout, or "". A step that leaves it running is told by its own name.
std::string rollout_turn(std::string_view step, std::string_view state) {
  static constexpr std::pair<std::string_view, const char*> kSteps[] = {
      {"BEGIN", "rollout.started"},    {"NEXT_STAGE", "rollout.stage_advanced"},
      {"approve", "rollout.approved"}, {"resume", "rollout.resumed"},
      {"advance", "rollout.resumed"},  {"finish", "rollout.resumed"}};
  static constexpr std::pair<std::string_view, const char*> kStates[] = {
      {"PAUSED", "rollout.paused"},           {"ROLLING_BACK", "rollout.rolling_back"},
      {"COMPLETED", "rollout.completed"},     {"FAILED", "rollout.failed"},
      {"ROLLED_BACK", "rollout.rolled_back"}, {"ABORTED", "rollout.aborted"},
      {"SUPERSEDED", "rollout.superseded"}};
  for (const auto& [name, type] : kSteps)
    if (name == step) return type;
  for (const auto& [name, type] : kStates)
    if (name == state) return type;
  return "";
}

Draft read_rollout(std::string_view payload) {
  const auto message = parse<in::RolloutState>(payload);
  Draft event;
  event.type = rollout_turn(message.step(), message.state());
  if (event.type.empty()) refuse("a rollout has no such state");
  event.about = About::kRollout;
  event.org = message.org_id();
  event.subject = message.rollout_id();
  event.at_ms = message.at_ms();
  if (!message.reason().empty()) event.said["reason"] = message.reason();
  if (message.stage() > 0) event.said["stage"] = message.stage();
  return event;
}

struct Reader {
  std::string_view leaf;
  Draft (*read)(std::string_view payload);
};
constexpr Reader kReaders[] = {
    {"device/state", read_state},
    {"device/presence", read_presence},
    {"device/service_exited", read_exit},
    {"device/command", read_command},
    {"device/registered", read_registered},
    {"device/removed", read_removed},
    {"device/revoked", read_revoked},
    {"device/clone_suspected", read_clone},
    {"deployment/created", read_deployment},
    {"rollout/state", read_rollout},
};

std::string id_of(std::string_view leaf, std::string_view payload, std::int64_t at_ms) {
  std::string whole(leaf);
  whole += '\n';
  whole += payload;
  return uuid_of(static_cast<std::uint64_t>(at_ms), crypto::sha256(whole));
}

// One object of the members of two.
std::string joined(std::string object, std::string_view more) {
  if (more == "{}") return object;
  object.back() = ',';
  return object.append(more.substr(1));
}

// "device.online" -> "flock/events/v1/device/online"
std::string topic_of(std::string type) {
  std::ranges::replace(type, '.', '/');
  return "flock/events/v1/" + std::move(type);
}

}  // namespace

std::optional<InternalEvent> read_internal_event(std::string_view leaf, std::string_view payload) {
  const auto* const reader = std::ranges::find(kReaders, leaf, &Reader::leaf);
  if (reader == std::end(kReaders)) return std::nullopt;
  Draft event = reader->read(payload);
  if (!is_uuid(event.org)) refuse("it names no organization");
  if (!is_uuid(event.subject)) refuse("it does not say what it is about");
  event.at_ms = to_unix_ms(device_time(event.at_ms));
  event.id = id_of(leaf, payload, event.at_ms);
  event.data = bj::serialize(event.said);
  return static_cast<InternalEvent&&>(event);
}

CustomerEvent customer_event(InternalEvent event, const EventSubject& subject) {
  bj::object data;
  switch (event.about) {
    case About::kDevice:
      data["device"] = {{"id", event.subject},
                        {"name", subject.device_name},
                        {"labels", json::parse(subject.device_labels)}};
      break;
    case About::kRollout:
      data["rollout"] = {{"id", event.subject}};
      [[fallthrough]];
    case About::kDeployment:
      data["deployment"] = {{"id", subject.deployment_id}};
      if (!subject.release_id.empty())  // there may be a host command in its place
        data["release"] = {{"id", subject.release_id}, {"version", subject.release_version}};
      break;
  }
  if (!subject.fleet_id.empty())
    data["fleet"] = {{"id", subject.fleet_id}, {"slug", subject.fleet_slug}};
  const bj::object envelope{{"id", event.id},
                            {"type", event.type},
                            {"timestamp", to_rfc3339(from_unix_ms(event.at_ms))},
                            {"org_id", event.org}};
  CustomerEvent out;
  out.payload =
      joined(bj::serialize(envelope), "{\"data\":" + joined(bj::serialize(data), event.data) + "}");
  out.id = std::move(event.id);
  out.org = std::move(event.org);
  out.topic = topic_of(std::move(event.type));
  return out;
}

const std::vector<std::string_view>& customer_event_types() {
  static const std::vector<std::string_view> types = {
      "command.done",           "command.expired",     "command.failed",
      "command.started",        "deployment.created",  "device.clone_suspected",
      "device.deregistered",    "device.offline",      "device.online",
      "device.registered",      "device.revoked",      "device.service_exited",
      "device.state_changed",   "rollout.aborted",     "rollout.approved",
      "rollout.completed",      "rollout.failed",      "rollout.paused",
      "rollout.resumed",        "rollout.rolled_back", "rollout.rolling_back",
      "rollout.stage_advanced", "rollout.started",     "rollout.superseded"};
  return types;
}

}  // namespace flock::domain

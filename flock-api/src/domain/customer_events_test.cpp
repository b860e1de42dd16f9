// SPDX-License-Identifier: Apache-2.0
// Every customer event against its example in proto/events/examples, which is held against its
// schema by proto/events/check.mjs.
#include "domain/customer_events.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/id.h"
#include "base/json.h"
#include "flock/internal/v1/internal.pb.h"

namespace flock::domain {
namespace {

namespace in = internal::v1;
using device::v1::CommandResult;

constexpr const char* kOrg = "0193b1a0-0000-7000-8000-000000000001";
constexpr const char* kDevice = "0193b1a0-0000-7000-8000-000000000002";
constexpr const char* kFleet = "0193b1a0-0000-7000-8000-000000000003";
constexpr const char* kRollout = "0193b1a0-0000-7000-8000-000000000004";
constexpr const char* kDeployment = "0193b1a0-0000-7000-8000-000000000005";
constexpr const char* kRelease = "0193b1a0-0000-7000-8000-000000000006";
constexpr const char* kCommand = "0193b1a0-0000-7000-8000-000000000007";
constexpr std::int64_t kAt = 1'796'040'000'250;

struct Case {
  std::string type, leaf, payload;
};

template <class Message>
Message of_device() {
  Message message;
  message.set_org_id(kOrg);
  message.set_device_id(kDevice);
  message.set_at_ms(kAt);
  return message;
}

std::string presence(bool online, const char* reason) {
  auto message = of_device<in::DevicePresence>();
  message.set_online(online);
  message.set_reason(reason);
  return message.SerializeAsString();
}

std::string command(CommandResult::State state, const char* said) {
  auto message = of_device<in::CommandResulted>();
  message.mutable_result()->set_command_id(kCommand);
  message.mutable_result()->set_state(state);
  message.mutable_result()->set_message(said);
  return message.SerializeAsString();
}

std::string membership(const char* reason) {
  auto message = of_device<in::DeviceMembership>();
  message.set_fleet_id(kFleet);
  message.set_reason(reason);
  return message.SerializeAsString();
}

std::string rollout(const char* state, const char* reason, const char* step = "END") {
  in::RolloutState message;
  message.set_step(step);
  message.set_stage(2);
  message.set_org_id(kOrg);
  message.set_rollout_id(kRollout);
  message.set_state(state);
  message.set_reason(reason);
  message.set_at_ms(kAt);
  return message.SerializeAsString();
}

std::string deployment() {
  in::DeploymentCreated message;
  message.set_org_id(kOrg);
  message.set_deployment_id(kDeployment);
  message.set_at_ms(kAt);
  return message.SerializeAsString();
}

device::v1::Exit out_of_memory() {
  device::v1::Exit exit;
  exit.set_code(137);
  exit.set_signal(9);
  exit.set_out_of_memory(true);
  exit.set_by(device::v1::Exit::KERNEL);
  exit.set_at_ms(kAt);
  return exit;
}

std::string service_exited() {
  auto message = of_device<in::ServiceExited>();
  message.set_service("web");
  *message.mutable_exit() = out_of_memory();
  return message.SerializeAsString();
}

std::string clone_suspected() {
  auto message = of_device<in::CloneSuspected>();
  message.add_boot_ids("5f1c");
  message.add_boot_ids("9a02");
  return message.SerializeAsString();
}

// All that a report can say.
std::string state_changed() {
  using device::v1::ServiceState;
  auto message = of_device<in::DeviceStateChanged>();
  device::v1::ReportedState& state = *message.mutable_state();
  state.set_boot_id("5f1c");
  state.set_seq(7);
  state.set_at_ms(kAt);
  state.set_phase(device::v1::ReportedState::FAILED);
  state.set_release_id(kRelease);
  state.set_desired_version(3);
  state.set_error("the container web ended with code 137");
  state.set_error_code("exited");
  ServiceState& web = *state.add_services();
  web.set_name("web");
  web.set_state(ServiceState::EXITED);
  web.set_health(ServiceState::UNHEALTHY);
  web.set_image_digest("sha256:" + std::string(64, 'a'));
  web.set_container_id("4c3f");
  web.set_restart_count(2);
  web.set_exit_code(137);
  web.set_message("out of memory");
  web.set_started_at_ms(kAt - 60'000);
  *web.mutable_last_exit() = out_of_memory();
  ServiceState& db = *state.add_services();
  db.set_name("db");
  db.set_state(ServiceState::PULLING);
  db.set_health(ServiceState::NO_CHECK);
  db.set_pull_percent(40);
  return message.SerializeAsString();
}

std::vector<Case> cases() {
  return {
      {"device.registered", "device/registered", membership("")},
      {"device.deregistered", "device/removed", membership("decommissioned")},
      {"device.revoked", "device/revoked", of_device<in::DeviceRevoked>().SerializeAsString()},
      {"device.online", "device/presence", presence(true, "connected")},
      {"device.offline", "device/presence", presence(false, "connection_lost")},
      {"device.state_changed", "device/state", state_changed()},
      {"device.service_exited", "device/service_exited", service_exited()},
      {"device.clone_suspected", "device/clone_suspected", clone_suspected()},
      {"command.started", "device/command", command(CommandResult::STARTED, "")},
      {"command.done", "device/command", command(CommandResult::DONE, "")},
      {"command.failed", "device/command", command(CommandResult::FAILED, "no such service")},
      {"command.expired", "device/command", command(CommandResult::EXPIRED, "")},
      {"deployment.created", "deployment/created", deployment()},
      {"rollout.started", "rollout/state", rollout("RUNNING", "it begins", "BEGIN")},
      {"rollout.stage_advanced", "rollout/state",
       rollout("RUNNING", "stage 1 of 3 is done", "NEXT_STAGE")},
      {"rollout.approved", "rollout/state", rollout("SCHEDULED", "it was approved", "approve")},
      {"rollout.paused", "rollout/state",
       rollout("PAUSED", "failed 20 % of 10 devices, at most 10 %", "PAUSE")},
      {"rollout.resumed", "rollout/state",
       rollout("RUNNING", "an operator let it go on", "resume")},
      {"rollout.rolling_back", "rollout/state",
       rollout("ROLLING_BACK", "3 of 10 devices failed", "ROLL_BACK")},
      {"rollout.rolled_back", "rollout/state", rollout("ROLLED_BACK", "3 of 10 devices failed")},
      {"rollout.aborted", "rollout/state", rollout("ABORTED", "an operator aborted it", "abort")},
      {"rollout.completed", "rollout/state", rollout("COMPLETED", "")},
      {"rollout.failed", "rollout/state", rollout("FAILED", "3 of 10 devices failed")},
      {"rollout.superseded", "rollout/state", rollout("SUPERSEDED", "")},
  };
}

EventSubject subject_of(const InternalEvent& event) {
  EventSubject subject;
  subject.fleet_id = kFleet;
  subject.fleet_slug = "gateways";
  if (event.about == InternalEvent::About::kDevice) {
    subject.device_name = "gw-1";
    subject.device_labels = R"({"site": "oslo"})";
  } else {
    subject.deployment_id = kDeployment;
    subject.release_id = kRelease;
    subject.release_version = "1.8.2";
  }
  return subject;
}

std::string why_not(const std::string& leaf, const std::string& payload) {
  try {
    read_internal_event(leaf, payload);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    return error.message();
  }
  return "";
}

std::string example_of(std::string_view type) {
  const std::string file = std::string(FLOCK_EVENT_EXAMPLES "/") + std::string(type) + ".json";
  return read_file(file).value_or("null");
}

TEST(CustomerEvents, AreAsTheirExamples) {
  std::set<std::string, std::less<>> seen;
  for (const Case& one : cases()) {
    const auto event = read_internal_event(one.leaf, one.payload);
    ASSERT_TRUE(event) << one.type;
    const CustomerEvent out = customer_event(*event, subject_of(*event));
    EXPECT_EQ(json::parse(out.payload), json::parse(example_of(one.type)))
        << one.type << " is: " << out.payload;
    const std::size_t dot = one.type.find('.');
    EXPECT_EQ(out.topic,
              "flock/events/v1/" + one.type.substr(0, dot) + "/" + one.type.substr(dot + 1));
    EXPECT_EQ(out.org, kOrg);
    seen.insert(one.type);
  }
  EXPECT_EQ(seen, (std::set<std::string, std::less<>>(customer_event_types().begin(),
                                                      customer_event_types().end())));
  std::set<std::string, std::less<>> files;
  for (const auto& file : std::filesystem::directory_iterator(FLOCK_EVENT_EXAMPLES))
    files.insert(file.path().stem().string());
  EXPECT_EQ(files, seen) << "an example that nothing writes";
}

TEST(CustomerEvents, OfTheSameMessageHaveTheSameId) {
  std::set<std::string> ids;
  for (const Case& one : cases()) {
    const auto first = read_internal_event(one.leaf, one.payload);
    const auto again = read_internal_event(one.leaf, one.payload);
    EXPECT_EQ(first->id, again->id);
    EXPECT_TRUE(is_uuid(first->id)) << first->id;
    EXPECT_EQ(first->id[14], '7');
    ids.insert(first->id);
  }
  EXPECT_EQ(ids.size(), cases().size());
  // The same bytes on another topic are other news.
  EXPECT_NE(read_internal_event("device/registered", membership("removed"))->id,
            read_internal_event("device/removed", membership("removed"))->id);
}

TEST(CustomerEvents, AreMadeOfWhatConcernsCustomersOnly) {
  for (const char* leaf : {"rollout/changed", "variables/changed", "ingester/a", "audit", "device",
                           "device/state/x", ""})
    EXPECT_FALSE(read_internal_event(leaf, "whatever")) << leaf;
}

TEST(CustomerEvents, SayWhyAMessageCannotBeRead) {
  const char* unreadable = "it is not the message that belongs on this topic";
  for (const Case& one : cases()) {
    EXPECT_EQ(why_not(one.leaf, "\xff\xff"), unreadable) << one.type;
    EXPECT_EQ(why_not(one.leaf, one.payload.substr(0, one.payload.size() - 1)), unreadable);
  }
  in::DevicePresence nobody;
  EXPECT_EQ(why_not("device/presence", nobody.SerializeAsString()), "it names no organization");
  nobody.set_org_id(kOrg);
  EXPECT_EQ(why_not("device/presence", nobody.SerializeAsString()),
            "it does not say what it is about");
  EXPECT_EQ(why_not("rollout/state", rollout("FLYING", "")), "a rollout has no such state");
  EXPECT_EQ(why_not("device/command", command(CommandResult::STATE_UNSPECIFIED, "")),
            "a command has no such state");
  auto unnamed = of_device<in::CommandResulted>();
  unnamed.mutable_result()->set_state(CommandResult::DONE);
  EXPECT_EQ(why_not("device/command", unnamed.SerializeAsString()), "it names no command");
}

TEST(CustomerEvents, HaveATimeThatCanBeWrittenWhateverTheClockSays) {
  for (const std::int64_t at : {INT64_MIN, std::int64_t{-1}, std::int64_t{0}, INT64_MAX}) {
    in::DeviceStateChanged message;
    message.set_org_id(kOrg);
    message.set_device_id(kDevice);
    message.set_at_ms(at);
    message.mutable_state()->set_at_ms(at);
    const auto event = read_internal_event("device/state", message.SerializeAsString());
    EventSubject subject = subject_of(*event);
    const auto out = json::parse(customer_event(*event, subject).payload);
    EXPECT_TRUE(at == INT64_MAX ? out.at("timestamp").as_string() == "9999-12-31T23:59:59.999Z"
                                : out.at("timestamp").as_string() == "1970-01-01T00:00:00.000Z")
        << out.at("timestamp");
  }
}

TEST(CustomerEvents, OfADeviceInNoFleetNameNone) {
  const auto event = read_internal_event("device/presence", presence(true, "connected"));
  EventSubject subject;
  subject.device_name = "gw-1";
  subject.device_labels = "{}";
  const auto out = json::parse(customer_event(*event, subject).payload);
  EXPECT_FALSE(out.at("data").as_object().contains("fleet"));
}

}  // namespace
}  // namespace flock::domain

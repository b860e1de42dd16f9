// SPDX-License-Identifier: Apache-2.0
// What devices are told to do: at once, when they are back, or never.
#include <gtest/gtest.h>

#include "async/loop.h"
#include "base/json.h"
#include "targets/api_itest.h"

namespace flock::targets {
namespace {

using namespace itest;
using Kind = device::v1::DeviceEvent;
using device::v1::CommandResult;

struct Site {
  Site(Executor executor, Stack& stack)
      : first(backend), second(backend), backend(executor, stack), api(executor, stack) {}
  Task<void> open() {
    co_await backend.start();
    api.token = co_await backend.make_tenant("Commands");
    org = text((co_await api.call("GET", "/v1/whoami")).at("organization"), "id");
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    const bj::value key =
        co_await api.call("POST", "/v1/provisioning-keys", bj::object{{"fleet_id", "edge"}});
    co_await first.join(api, text(key, "secret"));
    co_await second.join(api, text(key, "secret"));
    co_await api.call("PATCH", path("", second), bj::object{{"name", "second"}});
  }
  std::string path(const std::string& rest, const FakeDevice& device) const {
    return "/v1/devices/" + device.id + rest;
  }
  Task<void> come_online(FakeDevice& device) {
    co_await device.tell(Kind::ONLINE);
    co_await state_is("the device is online", path("", device), "ONLINE");
  }
  Task<bj::value> tell(FakeDevice& device, bj::object command) {
    bj::value made = co_await api.call("POST", path("/commands", device), std::move(command));
    EXPECT_EQ(api.last.status, 201) << api.last.body;
    co_return made;
  }
  Task<void> state_is(std::string what, std::string at, std::string state) {
    co_await eventually(what, [&]() -> Task<bool> {
      co_return text(co_await api.call("GET", at), "state") == state;
    });
  }
  std::string command_path(const FakeDevice& device, const bj::value& command) const {
    return path("/commands/" + text(command, "id"), device);
  }
  // The device's own word.
  Task<void> result(const FakeDevice& device, const bj::value& command, CommandResult::State state,
                    std::string message = "") {
    device::v1::DeviceEvent event;
    event.set_kind(device::v1::DeviceEvent::COMMAND);
    event.set_seq(to_unix_ms(system_clock().now()));
    event.set_at_ms(event.seq());
    event.mutable_command()->set_command_id(text(command, "id"));
    event.mutable_command()->set_state(state);
    event.mutable_command()->set_message(message);
    mqtt::Message told;
    told.topic = "devices/" + device.id + "/events";
    told.payload = event.SerializeAsString();
    co_await backend.bus.publish(std::move(told));
  }

  FakeDevice first, second;  // outlive the backend
  Backend backend;
  Api api;
  std::string org;
};

class Commands : public SiteTest<Site> {};

TEST_F(Commands, ReachADeviceThatIsOnlineAndEndByItsWord) {
  on_site([](Site& s) -> Task<void> {
    co_await s.come_online(s.first);
    const bj::value command =
        co_await s.tell(s.first, {{"type", "restart_service"}, {"service", "web"}});
    EXPECT_FALSE(command.at("waits_for_device").as_bool());
    co_await eventually("the command comes",
                        [&]() -> Task<bool> { co_return !s.first.commands.empty(); });
    const device::v1::Command& came = s.first.commands.front();
    EXPECT_EQ(came.id(), text(command, "id"));
    EXPECT_EQ(came.restart_service().service(), "web");
    EXPECT_GT(came.expires_at_ms(), to_unix_ms(system_clock().now()) + 3'500'000);
    const std::string at = s.command_path(s.first, command);
    co_await s.state_is("it is sent", at, "SENT");
    co_await s.result(s.first, command, CommandResult::STARTED);
    co_await s.state_is("it began", at, "STARTED");
    co_await s.result(s.first, command, CommandResult::FAILED, "there is no service web");
    co_await s.state_is("it failed", at, "FAILED");
    const bj::value now = co_await s.api.call("GET", at);
    EXPECT_EQ(text(now, "message"), "there is no service web");
    // What comes again or too late changes nothing.
    co_await s.result(s.first, command, CommandResult::STARTED);
    co_await s.result(s.first, command, CommandResult::DONE);
    const bj::value page = co_await s.api.call("GET", s.path("/commands", s.first));
    EXPECT_EQ(page.at_pointer("/items/0/state"), "FAILED");
    co_await s.api.call("POST", at + "/actions/cancel");
    EXPECT_EQ(s.api.last.status, 409);
    co_await s.backend.heard();
    EXPECT_EQ(s.backend.audited.back().action(), "createDeviceCommand");
    EXPECT_EQ(s.first.commands.size(), 1u);
  });
}

TEST_F(Commands, WaitForADeviceThatIsOffline) {
  on_site([](Site& s) -> Task<void> {
    const bj::value kept = co_await s.tell(s.first, {{"type", "identify"}, {"seconds", 60}}),
                    taken_back = co_await s.tell(s.first, {{"type", "reboot"}});
    EXPECT_TRUE(kept.at("waits_for_device").as_bool());
    co_await s.api.call("POST", s.command_path(s.first, taken_back) + "/actions/cancel");
    EXPECT_EQ(s.api.last.status, 200) << s.api.last.body;
    co_await s.backend.heard();
    EXPECT_TRUE(s.first.commands.empty()) << "nothing is sent to a device that is not there";
    co_await s.come_online(s.first);
    co_await s.state_is("it is sent", s.command_path(s.first, kept), "SENT");
    co_await eventually("the command comes",
                        [&]() -> Task<bool> { co_return !s.first.commands.empty(); });
    EXPECT_EQ(s.first.commands.front().identify().seconds(), 60u);
    // Back again without having said a word: it may have lost it on the way.
    co_await s.first.tell(Kind::OFFLINE);
    co_await s.state_is("the device is offline", s.path("", s.first), "OFFLINE");
    co_await s.come_online(s.first);
    co_await eventually("the command comes again",
                        [&]() -> Task<bool> { co_return s.first.commands.size() == 2; });
    EXPECT_EQ(s.first.commands[0].id(), s.first.commands[1].id());
    EXPECT_EQ(text(co_await s.api.call("GET", s.command_path(s.first, taken_back)), "state"),
              "CANCELLED");
  });
}

TEST_F(Commands, ExpireAndAreNeverSentThen) {
  on_site([](Site& s) -> Task<void> {
    const bj::value command =
        co_await s.tell(s.first, {{"type", "reboot"}, {"expires_in", "200ms"}});
    const std::string at = s.command_path(s.first, command);
    co_await s.state_is("it expired", at, "EXPIRED");
    co_await s.come_online(s.first);
    co_await s.backend.heard();
    EXPECT_TRUE(s.first.commands.empty());
    EXPECT_NE(text(co_await s.api.call("GET", at), "message").find("did not come online"),
              std::string::npos);
  });
}

TEST_F(Commands, AreRefusedWhereTheyCannotBe) {
  on_site([](Site& s) -> Task<void> {
    const std::string at = s.path("/commands", s.first);
    co_await refuse(
        s.api,
        {{"POST", at, R"({"type":"dance"})", 400, "/type"},
         {"POST", at, R"({"type":"restart_service"})", 400, "/service"},
         {"POST", at, R"({"type":"reboot","service":"web"})", 400, "/service"},
         {"POST", at, R"({"type":"reboot","volumes":["a"]})", 400, "/volumes"},
         {"POST", at, R"({"type":"reboot","expires_in":"31d"})", 400, "/expires_in"},
         {"POST", at, R"({"type":"identify","seconds":0})", 400, "/seconds"},
         {"POST", at, R"({"type":"purge","service":"db"})", 422, "/confirm"},
         {"POST", at, R"({"type":"purge","service":"db","confirm":"box2"})", 422, "/confirm"},
         {"POST", "/v1/devices/nosuch/commands", R"({"type":"reboot"})", 404, "no such device"},
         {"GET", at + "/" + new_uuid(), "", 404, "no such command"},
         {"POST", "/v1/devices:command", R"({"type":"purge","service":"a","device_ids":[]})", 400,
          "device by device"},
         {"POST", "/v1/devices:command", R"({"type":"reboot","filter":"id:*"})", 400,
          "/expected_count"},
         {"POST", "/v1/devices:command", R"({"type":"reboot","filter":"id:*","expected_count":3})",
          409, "actual_count"}});
    const bj::value purge = co_await s.tell(
        s.first, {{"type", "purge"}, {"service", "db"}, {"volumes", {"a,b"}}, {"confirm", "box"}});
    EXPECT_EQ(purge.at("volumes"), bj::array{"a,b"});
    Api developer(s.backend.executor, s.backend.stack,
                  co_await s.backend.make_key(s.api.token, "developer"));
    co_await developer.call("POST", at, bj::object{{"type", "reboot"}});
    EXPECT_EQ(developer.last.status, 403);
    EXPECT_NE(developer.last.body.find("commands:critical"), std::string::npos);
    co_await developer.call("POST", at, bj::object{{"type", "identify"}});
    EXPECT_EQ(developer.last.status, 201) << developer.last.body;
    co_await s.api.call("POST", s.path("/actions/revoke", s.first));
    co_await refuse(s.api, {{"POST", at, R"({"type":"reboot"})", 409, "REVOKED"}});
  });
}

TEST_F(Commands, TellManyDevicesTheSame) {
  on_site([](Site& s) -> Task<void> {
    co_await s.come_online(s.second);
    const bj::value made = co_await s.api.call(
        "POST", "/v1/devices:command",
        bj::object{{"type", "identify"}, {"filter", "fleet = edge"}, {"expected_count", 2}});
    EXPECT_EQ(s.api.last.status, 201) << s.api.last.body;
    EXPECT_EQ(made.at("items").as_array().size(), 2u);
    co_await eventually("the one that is online has it",
                        [&]() -> Task<bool> { co_return s.second.commands.size() == 1; });
    EXPECT_TRUE(s.first.commands.empty());
    const bj::value timeline = co_await s.api.call("GET", s.path("/events", s.second));
    EXPECT_EQ(timeline.at_pointer("/items/0/type"), "COMMAND");
    co_await s.api.call("POST", "/v1/devices:command",
                        bj::object{{"type", "identify"}, {"device_ids", {s.first.id}}});
    EXPECT_EQ(s.api.last.status, 201) << s.api.last.body;
  });
}

}  // namespace
}  // namespace flock::targets

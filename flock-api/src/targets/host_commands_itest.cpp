// SPDX-License-Identifier: Apache-2.0
// Deployments of host commands, with devices that say what the test has them say.
#include <gtest/gtest.h>

#include "base/json.h"
#include "targets/rollout_fleet_itest.h"

namespace flock::targets {
namespace {

using namespace itest;
using State = device::v1::HostCommandState;

// A fleet of one device, which says what the test has it say.
class Machine : public Fleet {
 public:
  using Fleet::Fleet;

  Task<void> open() {
    co_await Fleet::open();
    held = {"", "1", "2", "3"};
    co_await grow(1);
    device = devices.front().get();
  }

  // The rollout's path, when the device has what it is to do.
  Task<std::string> deploy(bj::object body) {
    const int before = device->desired_messages;
    body["target"] = bj::object{{"fleet_id", "edge"}};
    const std::string rollout = co_await Fleet::deploy(std::move(body));
    deployment = text(co_await api.call("GET", rollout), "deployment_id");
    co_await eventually("the device has it", [&]() -> Task<bool> {
      co_return device->desired_messages > before && device->desired.version() > 0;
    });
    co_return rollout;
  }
  Task<void> say(Report::Phase phase, State::Step step, std::optional<int> code = {}) {
    Report report = device->state(phase);
    State* state = report.mutable_host_command();
    state->set_id(device->desired.host_command().id());
    state->set_step(step);
    if (code) state->set_exit_code(*code);
    state->set_output("what it said\n");
    if (phase == Report::FAILED) {
      report.set_error_code("host_command_failed");
      report.set_error("the host command failed: exit code 3");
    }
    co_await device->report(std::move(report));
  }
  Task<bj::value> part(std::string rollout) {
    const bj::value page = co_await api.call("GET", rollout + "/devices");
    co_return page.at_pointer("/items/0");
  }

  FakeDevice* device = nullptr;
  std::string deployment;
};

class HostCommands : public SiteTest<Machine> {};

TEST_F(HostCommands, AreRolledOutLikeReleasesAndLeaveEachDeviceItsOwn) {
  on_site([](Machine& m) -> Task<void> {
    const std::string first = co_await m.deploy({{"release_id", "1"}});
    co_await m.device->report(m.device->state(Report::CONFIRMED));
    co_await m.until(first, "COMPLETED");
    const std::string release = m.device->desired.release_id();

    const bj::object command{{"command", "apt-get -y upgrade"},
                             {"verify_command", "systemctl is-system-running"},
                             {"rollback_command", "true"},
                             {"environment", {{"DEBIAN_FRONTEND", "noninteractive"}}},
                             {"expected_exit_codes", bj::array{0, 100}},
                             {"timeout", "1h"},
                             {"reboot", "after_success"}};
    const std::string rollout = co_await m.deploy({{"host_command", command}});
    const device::v1::DesiredState& desired = m.device->desired;
    EXPECT_EQ(desired.release_id(), release);
    EXPECT_EQ(desired.services_size(), 1);
    EXPECT_EQ(desired.host_command().id(), m.deployment);
    EXPECT_EQ(desired.host_command().command(), "apt-get -y upgrade");
    EXPECT_EQ(desired.host_command().timeout_ms(), 3'600'000);
    EXPECT_EQ(desired.host_command().reboot(), device::v1::HostCommand::AFTER_SUCCESS);
    EXPECT_FALSE(desired.host_command().undo());
    const bj::value made = co_await m.api.call("GET", "/v1/deployments/" + m.deployment);
    EXPECT_FALSE(made.as_object().contains("release"));
    for (const auto& [key, value] : command)
      EXPECT_EQ(made.at("host_command").at(key), value) << std::string(key);

    co_await m.say(Report::STARTING, State::RUNNING);
    co_await eventually("it is shown", [&]() -> Task<bool> {
      const bj::value part = co_await m.part(rollout);
      co_return part.as_object().contains("host_command") &&
          text(part.at("host_command"), "step") == "RUNNING";
    });
    // What was not done is not confirmed, whatever its phase.
    co_await m.say(Report::CONFIRMED, State::RUNNING);
    co_await eventually("it is not believed", [&]() -> Task<bool> {
      co_return text(co_await m.part(rollout), "state") == "SOAKING";
    });
    co_await m.say(Report::CONFIRMED, State::DONE, 100);
    co_await m.until(rollout, "COMPLETED");
    const bj::value part = co_await m.part(rollout);
    EXPECT_EQ(part.at_pointer("/host_command/step").as_string(), "DONE");
    EXPECT_EQ(part.at_pointer("/host_command/exit_code").as_int64(), 100);
    EXPECT_EQ(part.at_pointer("/host_command/output").as_string(), "what it said\n");
    const bj::value device = co_await m.api.call("GET", "/v1/devices/" + m.device->id);
    EXPECT_EQ(device.at_pointer("/reported/host_command/step").as_string(), "DONE");
    // Newcomers of the fleet get the release, not what was done once.
    const bj::value fleet = co_await m.api.call("GET", "/v1/fleets/edge");
    EXPECT_EQ(fleet.at_pointer("/current_release/id").as_string(), release);
  });
}

TEST_F(HostCommands, LeaveADeviceWhatItHasProvenAndSoDoesTheWayBack) {
  on_site([](Machine& m) -> Task<void> {
    const std::string first = co_await m.deploy({{"release_id", "1"}});
    co_await m.device->report(m.device->state(Report::CONFIRMED));
    co_await m.until(first, "COMPLETED");
    const std::string second = co_await m.deploy({{"release_id", "2"}});
    co_await m.say(Report::FAILED, State::STEP_UNSPECIFIED);  // and is at 1 again, by itself
    co_await m.until(second, "FAILED");

    const std::string command = co_await m.deploy({{"host_command", {{"command", "true"}}}});
    EXPECT_EQ(m.device->desired.release_version(), "1");
    co_await m.say(Report::CONFIRMED, State::DONE, 0);
    co_await m.until(command, "COMPLETED");

    const std::string again = co_await m.deploy({{"release_id", "2"}});
    co_await m.say(Report::FAILED, State::STEP_UNSPECIFIED);
    co_await m.until(again, "FAILED");
    const std::string third = co_await m.deploy({{"release_id", "3"}});
    co_await m.device->report(m.device->state(Report::CONFIRMED));
    co_await m.until(third, "COMPLETED");
    co_await m.order(third, "roll-back");
    co_await eventually("the device is sent back", [&]() -> Task<bool> {
      co_return m.device->desired.release_version() != "3";
    });
    EXPECT_EQ(m.device->desired.release_version(), "1");
  });
}

TEST_F(HostCommands, AreUndoneWhereTheRolloutGoesBack) {
  on_site([](Machine& m) -> Task<void> {
    const std::string rollout =
        co_await m.deploy({{"release_id", "1"},
                           {"host_command", {{"script", "true\n"}, {"rollback_command", "back"}}}});
    EXPECT_EQ(m.device->desired.release_version(), "1");
    co_await m.say(Report::CONFIRMED, State::DONE, 0);
    co_await m.until(rollout, "COMPLETED");
    co_await m.order(rollout, "roll-back");
    co_await eventually("the device is to undo it",
                        [&]() -> Task<bool> { co_return m.device->desired.host_command().undo(); });
    EXPECT_EQ(m.device->desired.services_size(), 0);
    EXPECT_EQ(m.device->desired.host_command().id(), m.deployment);
    co_await m.say(Report::CONFIRMED, State::UNDONE);
    co_await m.until(rollout, "ROLLED_BACK");
  });
}

TEST_F(HostCommands, ThatFailAreTheDevicesFailureWithTheCause) {
  on_site([](Machine& m) -> Task<void> {
    const std::string rollout = co_await m.deploy({{"host_command", {{"command", "false"}}}});
    co_await m.say(Report::FAILED, State::FAILED, 3);
    co_await m.until(rollout, "FAILED");
    const bj::value part = co_await m.part(rollout);
    EXPECT_EQ(text(part, "reason"), "host_command_failed: the host command failed: exit code 3");
    EXPECT_EQ(part.at_pointer("/host_command/exit_code").as_int64(), 3);
  });
}

TEST_F(HostCommands, ThatMakeNoSenseAreRefusedByTheirPlace) {
  on_site([](Machine& m) -> Task<void> {
    const auto refused = [&](bj::object command, std::string pointer) -> Task<void> {
      co_await m.api.call(
          "POST", "/v1/deployments",
          bj::object{{"target", {{"fleet_id", "edge"}}}, {"host_command", std::move(command)}});
      EXPECT_EQ(m.api.last.status, 400) << pointer;
      EXPECT_NE(m.api.last.body.find("\"" + pointer + "\""), std::string::npos)
          << pointer << m.api.last.body;
    };
    co_await refused({}, "/host_command/command");
    co_await refused({{"command", "a"}, {"script", "b"}}, "/host_command/command");
    co_await refused({{"command", "a"}, {"interpreter", "/bin/sh"}}, "/host_command/interpreter");
    co_await refused({{"script", "a"}, {"interpreter", "python3"}}, "/host_command/interpreter");
    co_await refused({{"command", "a"}, {"timeout", "soon"}}, "/host_command/timeout");
    co_await refused({{"command", "a"}, {"timeout", "2d"}}, "/host_command/timeout");
    co_await refused({{"command", "a"}, {"expected_exit_codes", bj::array{256}}},
                     "/host_command/expected_exit_codes");
    co_await refused({{"command", "a"}, {"run_as", "a b"}}, "/host_command/run_as");
    co_await refused({{"command", "a"}, {"working_directory", "tmp"}},
                     "/host_command/working_directory");
    co_await refused({{"command", "a"}, {"environment", {{"1A", "x"}}}},
                     "/host_command/environment/1A");
    co_await refused({{"command", "a"}, {"reboot", "perhaps"}}, "/host_command/reboot");
    co_await refused({{"command", "a"}, {"output_limit_bytes", 1}},
                     "/host_command/output_limit_bytes");
    co_await refused({{"command", "a"}, {"colour", "red"}}, "/host_command/colour");
    co_await refused({{"command", std::string(9000, 'x')}}, "/host_command/command");
    co_await m.api.call("POST", "/v1/deployments", bj::object{{"target", {{"fleet_id", "edge"}}}});
    EXPECT_NE(m.api.last.body.find("/release_id"), std::string::npos) << m.api.last.body;
  });
}

}  // namespace
}  // namespace flock::targets

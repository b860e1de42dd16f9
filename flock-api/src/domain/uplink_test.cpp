// SPDX-License-Identifier: Apache-2.0
#include "domain/uplink.h"

#include <gtest/gtest.h>

#include "base/id.h"

namespace flock::domain {
namespace {

constexpr std::int64_t kNow = 1'780'000'000'000, kDay = 86'400'000, kYear = 365 * kDay;

TEST(Uplink, TopicsOfDevicesAndNothingElse) {
  const std::string id = new_uuid();
  for (const char* leaf : {"state", "events", "telemetry", "logs"}) {
    const std::string topic = "devices/" + id + "/" + leaf;
    const auto uplink = parse_uplink(topic);
    ASSERT_TRUE(uplink) << topic;
    EXPECT_EQ(uplink->device, id);
    EXPECT_EQ(to_string(uplink->leaf), leaf);
  }
  for (const std::string& topic :
       {std::string(), std::string("devices/"), "devices/" + id, "devices/" + id + "/",
        "devices/" + id + "/desired", "devices/" + id + "/state/x", "devices/" + id + "x/state",
        "device/" + id + "/state",
        std::string("devices/not-a-device-id-but-just-as-long-as/state")})
    EXPECT_FALSE(parse_uplink(topic)) << topic;
}

TEST(Uplink, TextsAreCutBetweenCharacters) {
  EXPECT_EQ(shortened("abc", 3), "abc");
  EXPECT_EQ(shortened("abcd", 3), "abc");
  EXPECT_EQ(shortened("ab\xc3\xa9", 3), "ab");
  EXPECT_EQ(shortened("\xf0\x9f\x98\x80", 3), "");
}

TEST(Uplink, RefusesWhatIsOverALimitAndSaysWhich) {
  device::v1::ReportedState state;
  EXPECT_NE(read("\xff\xff", state).find("not the message"), std::string::npos);
  EXPECT_NE(read("", state).find("seq"), std::string::npos);
  EXPECT_NE(read(std::string(kUplinkBytes + 1, 'x'), state).find("bytes"), std::string::npos);
  state.set_seq(1);
  EXPECT_EQ(read(state.SerializeAsString(), state), "");
  for (int i = 0; i <= kServicesMost; ++i) state.add_services();
  EXPECT_NE(read(state.SerializeAsString(), state).find("services"), std::string::npos);

  device::v1::TelemetryBatch telemetry;
  for (int i = 0; i <= kPointsMost; ++i) telemetry.add_points()->set_at_ms(1);
  EXPECT_NE(read(telemetry.SerializeAsString(), telemetry).find("points"), std::string::npos);
  telemetry.Clear();
  telemetry.add_points()->add_services()->set_service(std::string(kNameBytes + 1, 'x'));
  EXPECT_NE(read(telemetry.SerializeAsString(), telemetry).find("name"), std::string::npos);

  device::v1::LogBatch logs;
  auto* line = logs.add_streams()->add_lines();
  EXPECT_NE(read(logs.SerializeAsString(), logs).find("number"), std::string::npos);
  line = logs.mutable_streams(0)->mutable_lines(0);
  line->set_number(1);
  line->set_text(std::string(kLineBytes + 1, 'x'));
  EXPECT_NE(read(logs.SerializeAsString(), logs).find("line"), std::string::npos);
  logs.mutable_streams(0)->mutable_lines(0)->set_text("fine");
  EXPECT_EQ(read(logs.SerializeAsString(), logs), "");
  logs.mutable_streams(0)->add_gaps()->set_first_number(2);
  EXPECT_NE(read(logs.SerializeAsString(), logs).find("gap"), std::string::npos);

  state.Clear();
  state.set_seq(1);
  state.set_agent_version(std::string("1\0", 2));
  EXPECT_NE(read(state.SerializeAsString(), state).find("NUL"), std::string::npos);
  state.clear_agent_version();
  state.set_boot_id(std::string(kNameBytes + 1, 'b'));
  EXPECT_NE(read(state.SerializeAsString(), state).find("boot id"), std::string::npos);

  device::v1::DeviceEvent event;
  event.mutable_command()->set_message(std::string("\0", 1));
  EXPECT_NE(read(event.SerializeAsString(), event).find("NUL"), std::string::npos);
  event.Clear();
  event.set_service(std::string(kNameBytes + 1, 'x'));
  EXPECT_NE(read(event.SerializeAsString(), event).find("name"), std::string::npos);
}

TEST(Uplink, AClockThatIsAYearOffKeepsOrderAndSpacing) {
  for (const std::int64_t newest :
       {kNow + kYear, kNow - kYear, std::int64_t{0}, INT64_MAX, INT64_MIN}) {
    const MessageTimes times(newest, kNow);
    EXPECT_TRUE(times.shifted());
    EXPECT_EQ(times.at(newest), kNow);
    if (newest > INT64_MIN + 1000) EXPECT_EQ(times.at(newest - 1000), kNow - 1000);
  }
  const MessageTimes right(kNow - 5000, kNow);
  EXPECT_FALSE(right.shifted());
  EXPECT_EQ(right.at(kNow - 6000), kNow - 6000);
  EXPECT_EQ(right.at(kNow + kYear), kNow);
  EXPECT_EQ(right.at(INT64_MIN), kNow);
}

TEST(Uplink, ANumberFromTheFutureDoesNotHideWhatFollows) {
  EXPECT_EQ(sane_seq(kNow - kYear, kNow), kNow - kYear);
  EXPECT_EQ(sane_seq(kNow + 1000, kNow), kNow + 1000);
  EXPECT_EQ(sane_seq(kNow + kYear, kNow), kNow);
  EXPECT_EQ(sane_seq(INT64_MAX, kNow), kNow);
}

TEST(Uplink, TheShapeOfAReportLeavesOutNumberAndTime) {
  device::v1::ReportedState state;
  state.set_boot_id("boot");
  state.set_seq(5);
  state.set_at_ms(kNow);
  state.set_phase(device::v1::ReportedState::CONFIRMED);
  state.add_services()->set_name("web");
  state.mutable_hardware()->set_os("Debian");
  const auto shape = shape_of(state.SerializeAsString());
  ASSERT_TRUE(shape);
  state.set_seq(INT64_MAX);
  state.set_at_ms(kNow + 1);
  EXPECT_EQ(shape_of(state.SerializeAsString()), shape);
  state.mutable_services(0)->set_restart_count(1);
  EXPECT_NE(shape_of(state.SerializeAsString()), shape);
  state.mutable_services(0)->clear_restart_count();
  EXPECT_EQ(shape_of(state.SerializeAsString()), shape);
  state.set_boot_id("boo");
  EXPECT_NE(shape_of(state.SerializeAsString()), shape);
  // Cut anywhere it is no report, or another one.
  const std::string bytes = state.SerializeAsString();
  for (std::size_t i = 0; i < bytes.size(); ++i)
    EXPECT_NE(shape_of(std::string_view(bytes).substr(0, i)), shape_of(bytes)) << i;
}

TEST(Uplink, AFloodEndsAtTheDevicesBudget) {
  Budget budget;
  std::int64_t now = kNow;
  std::size_t taken = 0;
  for (int i = 0; i < 10'000; ++i, ++now) taken += take(budget, 1000, now) ? 1000 : 0;
  EXPECT_NEAR(static_cast<double>(taken), Budget::kBurst + 10 * Budget::kPerSecond, 2000);
  now += 3'600'000;
  EXPECT_TRUE(take(budget, 1'000'000, now));
}

}  // namespace
}  // namespace flock::domain

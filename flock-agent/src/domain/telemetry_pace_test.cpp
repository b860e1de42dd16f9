// SPDX-License-Identifier: Apache-2.0
#include "domain/telemetry_pace.h"

#include <gtest/gtest.h>

namespace flock::agent {
namespace {

device::v1::TelemetryPoint point(std::int64_t seconds, float cpu = 0.1f) {
  device::v1::TelemetryPoint out;
  out.set_at_ms(1'000'000'000'000 + seconds * 1000);
  out.mutable_host()->set_cpu_ratio(cpu);
  out.mutable_host()->set_memory_total_bytes(1000);
  out.mutable_host()->set_memory_used_bytes(500);
  out.mutable_host()->set_disk_total_bytes(1000);
  auto* service = out.add_services();
  service->set_service("web");
  service->set_memory_bytes(1000);
  return out;
}
SteadyPoint at(int seconds) { return SteadyPoint() + Duration(1'000'000 + seconds * 1000); }

TEST(TelemetryPace, KeepsWhatIsNewAndASignOfLife) {
  TelemetryPace pace({});
  EXPECT_TRUE(pace.keep(point(0)));
  EXPECT_FALSE(pace.keep(point(30, 0.12f)));
  EXPECT_TRUE(pace.keep(point(60, 0.2f))) << "0.1 more than the one kept";
  EXPECT_FALSE(pace.keep(point(90, 0.2f)));
  EXPECT_FALSE(pace.keep(point(330, 0.2f)));
  EXPECT_TRUE(pace.keep(point(360, 0.2f))) << "five minutes of silence";
  EXPECT_TRUE(pace.keep(point(0, 0.2f))) << "the clock was set back";
}

TEST(TelemetryPace, SlowDriftIsSeen) {
  TelemetryPace pace({});
  int kept = 0;
  for (int i = 0; i < 9; ++i)
    kept += pace.keep(point(i * 30, 0.1f + 0.01f * static_cast<float>(i)));
  EXPECT_EQ(kept, 2) << "measured from the one that was kept, not from the last";
}

TEST(TelemetryPace, SeesEveryKindOfChange) {
  const auto before = point(0);
  EXPECT_FALSE(differs(before, before));
  const auto changed = [&](auto&& change) {
    auto after = before;
    change(after);
    return differs(before, after);
  };
  EXPECT_TRUE(changed([](auto& p) { p.mutable_host()->set_memory_used_bytes(530); }));
  EXPECT_FALSE(changed([](auto& p) { p.mutable_host()->set_memory_used_bytes(510); }));
  EXPECT_TRUE(changed([](auto& p) { p.mutable_host()->set_disk_used_bytes(30); }));
  EXPECT_TRUE(changed([](auto& p) { p.mutable_host()->set_swap_used_bytes(30); }));
  EXPECT_TRUE(changed([](auto& p) { p.mutable_host()->set_temperature_celsius(3); }));
  EXPECT_TRUE(changed([](auto& p) { p.mutable_host()->set_throttled(true); }));
  EXPECT_TRUE(changed([](auto& p) { p.mutable_host()->set_load_1m(1); }));
  EXPECT_FALSE(changed([](auto& p) { p.mutable_host()->set_network_sent_bytes(9999); }));
  EXPECT_TRUE(changed([](auto& p) { p.mutable_services(0)->set_service("db"); }));
  EXPECT_TRUE(changed([](auto& p) { p.mutable_services(0)->set_memory_bytes(1100); }));
  EXPECT_TRUE(changed([](auto& p) { p.mutable_services(0)->set_cpu_cores(0.1f); }));
  EXPECT_TRUE(changed([](auto& p) { p.mutable_services(0)->set_pids(2); }));
  EXPECT_TRUE(changed([](auto& p) { p.clear_services(); }));
}

TEST(TelemetryPace, SendsAtOnceAfterAConnectionThenAtItsPace) {
  TelemetryPace pace({});
  EXPECT_TRUE(pace.due(at(0), false));
  pace.sent(at(0));
  EXPECT_FALSE(pace.due(at(30), false));
  EXPECT_TRUE(pace.due(at(30), true)) << "an update runs";
  EXPECT_TRUE(pace.due(at(60), false));
  EXPECT_EQ(pace.pause(false), Duration(30'000));
  EXPECT_EQ(pace.pause(true), Duration(10'000));
  pace.sent(at(60));
  pace.connected();
  EXPECT_TRUE(pace.due(at(61), false));
}

}  // namespace
}  // namespace flock::agent

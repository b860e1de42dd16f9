// SPDX-License-Identifier: Apache-2.0
#include "sim/behaviour.h"

#include <gtest/gtest.h>

namespace flock::agent::sim {
namespace {

using device::v1::DesiredState;
using device::v1::ReportedState;

DesiredState release(const std::string& id) {
  DesiredState desired;
  desired.set_version(3);
  desired.set_release_id(id);
  desired.set_soak_ms(5000);
  auto& service = *desired.add_services();
  service.set_name("web");
  service.set_image("registry/web@sha256:abc");
  return desired;
}

TEST(Behaviour, TheSameSeedGivesTheSameCourse) {
  Behaviour behaviour;
  behaviour.fail_update_percent = 30;
  for (int device = 0; device < 50; ++device) {
    const auto one = course(behaviour, device, release("a")),
               two = course(behaviour, device, release("a"));
    ASSERT_EQ(one.size(), two.size());
    EXPECT_EQ(one.back().after, two.back().after);
    EXPECT_EQ(one.back().phase, two.back().phase);
  }
}

TEST(Behaviour, TheShareThatFailsIsWhatWasAskedFor) {
  Behaviour behaviour;
  behaviour.fail_update_percent = 20;
  int failed = 0, of_both = 0;
  for (int device = 0; device < 5000; ++device) {
    const bool a = course(behaviour, device, release("a")).back().phase == ReportedState::FAILED,
               b = course(behaviour, device, release("b")).back().phase == ReportedState::FAILED;
    failed += a;
    of_both += a && b;
  }
  EXPECT_NEAR(failed, 1000, 120);
  EXPECT_NEAR(of_both, 200, 60);  // each release anew
  behaviour.fail_update_percent = 0;
  for (int device = 0; device < 100; ++device)
    EXPECT_EQ(course(behaviour, device, release("a")).back().phase, ReportedState::CONFIRMED);
  behaviour.fail_release = "9";
  DesiredState bad = release("b");
  bad.set_release_version("9");
  EXPECT_EQ(course(behaviour, 1, release("a")).back().phase, ReportedState::CONFIRMED);
  EXPECT_EQ(course(behaviour, 1, bad).back().phase, ReportedState::FAILED);
}

TEST(Behaviour, ConfirmsAfterTheSoakWithTheDigestAndNeverBefore) {
  const DesiredState desired = release("a");
  for (const Step& step : course(Behaviour{}, 1, desired)) {
    const ReportedState state = reported(desired, step);
    const bool proof = state.services(0).image_digest() == "sha256:abc";
    EXPECT_EQ(proof,
              step.phase == ReportedState::SOAKING || step.phase == ReportedState::CONFIRMED);
    EXPECT_EQ(state.desired_version(), 3);
  }
  const auto steps = course(Behaviour{}, 1, desired);
  EXPECT_EQ(steps.back().after - steps[steps.size() - 2].after, Duration(5000));
}

TEST(Behaviour, SaysThatHostCommandsWereDone) {
  DesiredState desired = release("a");
  desired.mutable_host_command()->set_id("d");
  const Step last = course(Behaviour{}, 1, desired).back();
  ReportedState state = reported(desired, last);
  EXPECT_EQ(state.host_command().id(), "d");
  EXPECT_EQ(state.host_command().step(), device::v1::HostCommandState::DONE);
  desired.mutable_host_command()->set_undo(true);
  state = reported(desired, last);
  EXPECT_EQ(state.host_command().step(), device::v1::HostCommandState::UNDONE);
}

TEST(Behaviour, WithoutServicesThereIsNothingToDo) {
  EXPECT_EQ(course(Behaviour{}, 1, DesiredState()).back().phase, ReportedState::IDLE);
}

TEST(Behaviour, TelemetryStaysWithinItsBounds) {
  const DesiredState desired = release("a");
  for (int n = 0; n < 200; ++n) {
    const auto point = telemetry(Behaviour{}, n % 7, n, desired);
    EXPECT_GE(point.host().cpu_ratio(), 0);
    EXPECT_LE(point.host().cpu_ratio(), 1);
    EXPECT_LE(point.host().memory_used_bytes(), point.host().memory_total_bytes());
    EXPECT_EQ(point.services_size(), 1);
  }
}

}  // namespace
}  // namespace flock::agent::sim

// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "base/error.h"
#include "domain/desired.h"
#include "domain/device_progress.h"

namespace flock::domain {
namespace {

device::v1::DesiredState wanted() {
  workload::Workload workload;
  workload::Service service;
  service.name = "web";
  service.repository = "r.example/a";
  service.digests = {{"linux/amd64", "sha256:x"}, {"linux/arm/v6", "sha256:six"}};
  workload.services.push_back(service);
  auto desired = make_desired(workload, "amd64", "");
  desired.set_version(7);
  return desired;
}

TEST(Progress, ConfirmsOnlyWithProof) {
  using State = device::v1::ServiceState;
  const auto desired = wanted();
  device::v1::ReportedState report;
  report.set_desired_version(7);
  report.set_phase(device::v1::ReportedState::CONFIRMED);
  EXPECT_EQ(progress_of(report, desired).state, "SOAKING");
  auto* service = report.add_services();
  service->set_name("web");
  service->set_image_digest("sha256:x");
  service->set_state(State::RUNNING);
  service->set_health(State::NO_CHECK);
  EXPECT_EQ(progress_of(report, desired).state, "CONFIRMED");
  service->set_health(State::CHECKING);
  EXPECT_EQ(progress_of(report, desired).state, "SOAKING");
  service->set_health(State::HEALTHY);
  service->set_image_digest("sha256:other");
  EXPECT_EQ(progress_of(report, desired).state, "SOAKING");
  EXPECT_FALSE(progress_of(report, desired).unhealthy);
  service->set_health(State::UNHEALTHY);
  service->set_restart_count(kLoop);
  EXPECT_TRUE(progress_of(report, desired).unhealthy);
  EXPECT_TRUE(progress_of(report, desired).restarting);
  service->set_name("of another release");
  EXPECT_FALSE(progress_of(report, desired).restarting);
  report.set_desired_version(6);
  EXPECT_EQ(progress_of(report, desired).state, "");
}

TEST(Progress, NeedsTheHostCommandToBeDoneOrUndone) {
  using State = device::v1::HostCommandState;
  device::v1::DesiredState desired;
  desired.set_version(7);
  desired.mutable_host_command()->set_id("d");
  device::v1::ReportedState report;
  report.set_desired_version(7);
  report.set_phase(device::v1::ReportedState::CONFIRMED);
  EXPECT_EQ(progress_of(report, desired).state, "SOAKING") << "an old flockd knows nothing of it";
  EXPECT_EQ(progress_of(report, desired).reason,
            "confirmed without proof: the host command is not done");
  report.mutable_host_command()->set_id("of another deployment");
  report.mutable_host_command()->set_step(State::DONE);
  EXPECT_EQ(progress_of(report, desired).state, "SOAKING");
  report.mutable_host_command()->set_id("d");
  EXPECT_EQ(progress_of(report, desired).state, "CONFIRMED");
  desired.mutable_host_command()->set_undo(true);
  EXPECT_EQ(progress_of(report, desired).state, "SOAKING");
  report.mutable_host_command()->set_step(State::UNDONE);
  EXPECT_EQ(progress_of(report, desired).state, "CONFIRMED");
}

TEST(Desired, PicksThePlatformOfTheDevice) {
  const std::map<std::string, std::string> digests{
      {"linux/amd64", "a"}, {"linux/arm/v6", "six"}, {"linux/arm64", "b"}};
  EXPECT_EQ(digest_for(digests, "amd64", ""), "a");
  EXPECT_EQ(digest_for(digests, "arm", "v7"), "six");
  EXPECT_EQ(digest_for(digests, "arm", "v5"), "");
  EXPECT_EQ(digest_for(digests, "arm64", "v8"), "b");
  EXPECT_EQ(digest_for(digests, "riscv64", ""), "");
  try {
    workload::Workload workload;
    workload.services.emplace_back().name = "web";
    workload.services[0].digests = digests;
    make_desired(workload, "riscv64", "");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(error.message().find("linux/arm64"), std::string::npos);
  }
}

}  // namespace
}  // namespace flock::domain

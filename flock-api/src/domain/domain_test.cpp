// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "domain/desired.h"
#include "domain/rollout.h"

namespace flock::domain {
namespace {

TEST(RolloutJudge, FollowsTheTable) {
  const std::tuple<RolloutCounts, double, Verdict> cases[] = {
      {{0, 0, 0, 0}, 1, Verdict::kComplete},    {{3, 0, 0, 0}, 1, Verdict::kContinue},
      {{3, 3, 0, 0}, 1, Verdict::kComplete},    {{3, 2, 1, 0}, 1, Verdict::kComplete},
      {{3, 0, 3, 0}, 1, Verdict::kFail},        {{3, 0, 1, 0}, 1, Verdict::kContinue},
      {{3, 0, 1, 0}, 0, Verdict::kFail},        {{4, 2, 1, 0}, 0.2, Verdict::kFail},
      {{4, 2, 1, 0}, 0.25, Verdict::kContinue}, {{2, 0, 0, 2}, 1, Verdict::kSuperseded},
      {{2, 1, 0, 1}, 1, Verdict::kComplete},    {{2, 0, 1, 1}, 1, Verdict::kFail},
  };
  for (const auto& [counts, ratio, wanted] : cases) {
    EXPECT_EQ(judge(counts, ratio, "x").verdict, wanted)
        << counts.total << counts.confirmed << counts.failed << counts.superseded << " " << ratio;
  }
  EXPECT_EQ(judge({2, 0, 2, 0}, 1, "image_pull_failed: no").reason,
            "2 of 2 devices failed: image_pull_failed: no");
}

// Whatever the order of events, a rollout whose devices all settle ends, and it never completes
// with an open device.
TEST(RolloutJudge, AlwaysEndsAndNeverTooEarly) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 2000; ++round) {
    RolloutCounts counts;
    counts.total = 1 + random() % 8;
    const double ratio = static_cast<double>(random() % 5) / 4;
    while (counts.open() > 0) {
      const Verdict before = judge(counts, ratio, "").verdict;
      EXPECT_TRUE(before == Verdict::kContinue || (before == Verdict::kFail && counts.failed > 0));
      std::int64_t* settled[] = {&counts.confirmed, &counts.failed, &counts.superseded};
      ++*settled[random() % 3];
    }
    EXPECT_NE(judge(counts, ratio, "").verdict, Verdict::kContinue);
  }
}

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
  report.set_desired_version(6);
  EXPECT_EQ(progress_of(report, desired).state, "");
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

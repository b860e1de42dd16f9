// SPDX-License-Identifier: Apache-2.0
#include "domain/comparison.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

namespace flock::domain {
namespace {

std::uint64_t seed() {
  const char* given = std::getenv("FLOCK_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : 20261130;
  std::printf("FLOCK_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

struct World {
  double updated = 0, others = 0;  // how often devices are bad
  double tolerance = 0.01;
  std::int64_t others_for_each = kOthersForEach, devices = 200;
};

// The least p-value of one rollout, looked at after each of its devices.
double least_p_value(const World& world, std::mt19937_64& random) {
  std::bernoulli_distribution updated(world.updated);
  std::binomial_distribution<std::int64_t> learned(kOthersToLearn, world.others);
  std::binomial_distribution<std::int64_t> others(world.others_for_each, world.others);
  Evidence evidence;
  learn(evidence, kOthersToLearn, learned(random));
  double least = 1;
  for (std::int64_t i = 0; i < world.devices; ++i) {
    bet(evidence, updated(random), world.others_for_each, others(random), world.tolerance);
    least = std::min(least, p_value(evidence));
  }
  return least;
}

constexpr int kRuns = 1000;

// How many of kRuns rollouts raise an alarm at `alpha`.
std::vector<int> alarms(const World& world, const std::vector<double>& alphas,
                        std::mt19937_64& random) {
  std::vector<int> out(alphas.size());
  for (int run = 0; run < kRuns; ++run) {
    const double least = least_p_value(world, random);
    for (std::size_t i = 0; i < alphas.size(); ++i) out[i] += least <= alphas[i] ? 1 : 0;
  }
  for (std::size_t i = 0; i < alphas.size(); ++i)
    std::printf(
        "updated %4.1f %% bad, others %4.1f %% (%lld for each), tolerance %g, alpha %g: "
        "%5.2f %% alarms within %lld looks\n",
        world.updated * 100, world.others * 100, static_cast<long long>(world.others_for_each),
        world.tolerance, alphas[i], 100.0 * out[i] / kRuns, static_cast<long long>(world.devices));
  return out;
}

// The worst that is no worse: the updated are as bad as the others and the tolerance together.
// Three standard deviations are left to chance, for the test must hold with any seed.
TEST(Comparison, FalseAlarmsAreAtOrUnderTheStatedRate) {
  std::mt19937_64 random(seed());
  const std::vector<double> alphas{0.01, 0.05};
  for (const double others : {0.0, 0.02, 0.1, 0.4}) {
    for (const double tolerance : {0.0, 0.02}) {
      for (const std::int64_t each : {std::int64_t{1}, kOthersForEach}) {
        const auto found = alarms({others + tolerance, others, tolerance, each}, alphas, random);
        for (std::size_t i = 0; i < alphas.size(); ++i)
          EXPECT_LE(found[i], alphas[i] * kRuns + 3 * std::sqrt(alphas[i] * kRuns));
      }
    }
  }
}

// As docs/rollouts.md states it.
TEST(Comparison, ABadReleaseIsNoticedWithinTheStatedSample) {
  std::mt19937_64 random(seed());
  struct Stated {
    double updated, others;
    std::int64_t devices;
  };
  for (const Stated& stated : {Stated{0.5, 0.01, 15}, Stated{0.2, 0.01, 60}, Stated{0.1, 0.01, 220},
                               Stated{0.3, 0.05, 60}, Stated{0.3, 0.1, 130}}) {
    const World world{
        .updated = stated.updated, .others = stated.others, .devices = stated.devices};
    EXPECT_GE(alarms(world, {0.01}, random)[0], kRuns * 9 / 10);
  }
}

TEST(Comparison, EachDeviceCountsOnceAndNothingIsBetWithoutOthers) {
  Evidence evidence;
  bet(evidence, true, 0, 0, 0.01);
  EXPECT_EQ(evidence.updated, 0);
  EXPECT_EQ(p_value(evidence), 1);
  learn(evidence, 50, 1);
  bet(evidence, true, 8, 0, 0.01);
  bet(evidence, false, 8, 1, 0.01);
  EXPECT_EQ(evidence.updated, 2);
  EXPECT_EQ(evidence.updated_bad, 1);
  EXPECT_EQ(evidence.others, 66);
  EXPECT_EQ(evidence.others_bad, 2);
  EXPECT_LT(p_value(evidence), 1);
}

// What was alarming stays so: good devices that follow do not take it back.
TEST(Comparison, AnAlarmStays) {
  Evidence evidence;
  learn(evidence, 50, 0);
  for (int i = 0; i < 10; ++i) bet(evidence, true, 8, 0, 0.01);
  const double alarm = p_value(evidence);
  EXPECT_LT(alarm, 1e-6);
  for (int i = 0; i < 1000; ++i) bet(evidence, false, 8, 0, 0.01);
  EXPECT_EQ(p_value(evidence), alarm);
}

// Extreme rates leave the numbers finite.
TEST(Comparison, HoldsAtTheEdges) {
  for (const double tolerance : {0.0, 0.5}) {
    for (const int bad : {0, 1}) {
      Evidence evidence;
      learn(evidence, 50, bad * 50);
      for (int i = 0; i < 10'000; ++i) bet(evidence, i % 2 == bad, 1, i % 2, tolerance);
      const double p = p_value(evidence);
      EXPECT_TRUE(p >= 0 && p <= 1) << p;
    }
  }
}

}  // namespace
}  // namespace flock::domain

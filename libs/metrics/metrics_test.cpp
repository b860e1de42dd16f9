// SPDX-License-Identifier: Apache-2.0
#include "metrics/metrics.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"

namespace flock::metrics {
namespace {

TEST(Metrics, TheSameNameAndLabelsAreTheSameMetric) {
  Counter one("flock_test_messages_total", "Messages.", {{"kind", "state"}});
  Counter same("flock_test_messages_total", "Messages.", {{"kind", "state"}});
  Counter other("flock_test_messages_total", "Messages.", {{"kind", "logs"}});
  one.add();
  same.add(2);
  EXPECT_EQ(one.value(), 3);
  EXPECT_EQ(other.value(), 0);
}

TEST(Metrics, AreWrittenInPrometheusForm) {
  Gauge("flock_test_temperature_celsius", "How warm.", {{"room", "a\"b\n"}}).set(21.5);
  Histogram("flock_test_duration_seconds", "How long.", {}, {0.1, 1}).observe(0.5);
  const std::string all = text();
  EXPECT_NE(all.find("# HELP flock_test_temperature_celsius How warm.\n"
                     "# TYPE flock_test_temperature_celsius gauge\n"
                     "flock_test_temperature_celsius{room=\"a\\\"b\\n\"} 21.5\n"),
            std::string::npos)
      << all;
  EXPECT_NE(all.find("flock_test_duration_seconds_bucket{le=\"0.1\"} 0\n"), std::string::npos);
  EXPECT_NE(all.find("flock_test_duration_seconds_bucket{le=\"1\"} 1\n"), std::string::npos);
  EXPECT_NE(all.find("flock_test_duration_seconds_count 1\n"), std::string::npos);
}

TEST(Metrics, ANameThatIsNoneOrOfAnotherKindIsRefused) {
  Counter("flock_test_taken_total", "Taken.");
  EXPECT_THROW(Gauge("flock_test_taken_total", "Taken."), Error);
  EXPECT_THROW(Counter("flock test", "With a space."), Error);
}

TEST(Metrics, CountFromAllThreads) {
  Counter counter("flock_test_threads_total", "From all threads.");
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int n = 0; n < 10'000; ++n) counter.add();
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(counter.value(), 40'000);
}

}  // namespace
}  // namespace flock::metrics

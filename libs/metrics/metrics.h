// SPDX-License-Identifier: Apache-2.0
// What this process counts about itself, for Prometheus. One registry for the process: a metric is
// asked for by name once, kept, and may be changed from any thread. Names: `flock_`, base units, a
// unit's suffix, `_total` for counters. Labels are few and closed: never a device, user or request.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace flock::metrics {

using Labels = std::map<std::string, std::string>;

// Handles; the metric itself lives as long as the process. The same name and labels: the same
// metric. Throws Error{kInternal} when the name stands for another kind, or is no valid name.
class Counter {
 public:
  Counter(const std::string& name, const std::string& help, const Labels& labels = {});
  void add(double amount = 1) noexcept;  // not below 0
  double value() const noexcept;

 private:
  void* metric_;
};

class Gauge {
 public:
  Gauge(const std::string& name, const std::string& help, const Labels& labels = {});
  void set(double value) noexcept;
  void add(double amount) noexcept;
  double value() const noexcept;

 private:
  void* metric_;
};

// Upper bounds in seconds, from 1 ms to 10 s (OpenTelemetry's for HTTP, and one below).
std::vector<double> seconds();

class Histogram {
 public:
  Histogram(const std::string& name, const std::string& help, const Labels& labels = {},
            std::vector<double> bounds = seconds());
  void observe(double value) noexcept;

 private:
  void* metric_;
};

// All of them in Prometheus' text format 0.0.4.
std::string text();

}  // namespace flock::metrics

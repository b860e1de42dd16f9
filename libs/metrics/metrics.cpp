// SPDX-License-Identifier: Apache-2.0
#include "metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "base/error.h"

namespace flock::metrics {
namespace {

// Not destroyed: threads may count to the very end.
prometheus::Registry& registry() {
  static auto* const instance = new prometheus::Registry();
  return *instance;
}

// The library throws std::invalid_argument for what a programmer got wrong.
template <typename Make>
auto* made(const std::string& name, Make make) {
  try {
    return make();
  } catch (const std::exception& error) {
    throw Error(Code::kInternal, "a metric cannot be made")
        .with("metric", name)
        .with("reason", error.what());
  }
}

template <typename Metric>
Metric* as(void* metric) {
  return static_cast<Metric*>(metric);
}

}  // namespace

Counter::Counter(const std::string& name, const std::string& help, const Labels& labels)
    : metric_(made(name, [&] {
        return &prometheus::BuildCounter().Name(name).Help(help).Register(registry()).Add(labels);
      })) {}
void Counter::add(double amount) noexcept { as<prometheus::Counter>(metric_)->Increment(amount); }
double Counter::value() const noexcept { return as<prometheus::Counter>(metric_)->Value(); }

Gauge::Gauge(const std::string& name, const std::string& help, const Labels& labels)
    : metric_(made(name, [&] {
        return &prometheus::BuildGauge().Name(name).Help(help).Register(registry()).Add(labels);
      })) {}
void Gauge::set(double value) noexcept { as<prometheus::Gauge>(metric_)->Set(value); }
void Gauge::add(double amount) noexcept { as<prometheus::Gauge>(metric_)->Increment(amount); }
double Gauge::value() const noexcept { return as<prometheus::Gauge>(metric_)->Value(); }

std::vector<double> seconds() {
  return {0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10};
}

Histogram::Histogram(const std::string& name, const std::string& help, const Labels& labels,
                     std::vector<double> bounds)
    : metric_(made(name, [&] {
        return &prometheus::BuildHistogram()
                    .Name(name)
                    .Help(help)
                    .Register(registry())
                    .Add(labels, std::move(bounds));
      })) {}
void Histogram::observe(double value) noexcept {
  as<prometheus::Histogram>(metric_)->Observe(value);
}

std::string text() { return prometheus::TextSerializer().Serialize(registry().Collect()); }

}  // namespace flock::metrics

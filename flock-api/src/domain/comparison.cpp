// SPDX-License-Identifier: Apache-2.0
#include "domain/comparison.h"

#include <algorithm>
#include <cmath>

namespace flock::domain {
namespace {

// No bet risks all that is left: it could not win it back.
constexpr double kMostAtRisk = 0.95;

double log_mean(const std::array<double, kEffects.size()>& logs) {
  const double top = *std::max_element(logs.begin(), logs.end());
  double sum = 0;
  for (const double value : logs) sum += std::exp(value - top);
  return top + std::log(sum / static_cast<double>(logs.size()));
}

}  // namespace

void learn(Evidence& evidence, std::int64_t others, std::int64_t others_bad) {
  evidence.others += others;
  evidence.others_bad += others_bad;
}

void bet(Evidence& evidence, bool bad, std::int64_t others, std::int64_t others_bad,
         double tolerance) {
  if (others < 1) return;
  const double count = static_cast<double>(others), good = static_cast<double>(others - others_bad);
  // From the past alone, with half a bad and half a good device more than were seen.
  const double seen =
      (static_cast<double>(evidence.others_bad) + 0.5) / (static_cast<double>(evidence.others) + 1);
  const double usual = std::min(seen, 0.99 - tolerance), most = usual + tolerance;
  for (std::size_t i = 0; i < kEffects.size(); ++i) {
    const double stake =
        std::min(kEffects[i] / most, kMostAtRisk * count / (1 - usual));  // both factors above 0
    evidence.capital[i] +=
        std::log1p(stake * ((bad ? 1 : 0) - most)) +
        static_cast<double>(others_bad) * std::log1p(-stake / count * (1 - usual)) +
        good * std::log1p(stake / count * usual);
  }
  ++evidence.updated;
  evidence.updated_bad += bad ? 1 : 0;
  learn(evidence, others, others_bad);
  evidence.most = std::max(evidence.most, log_mean(evidence.capital));
}

double p_value(const Evidence& evidence) { return std::exp(-std::max(evidence.most, 0.0)); }

}  // namespace flock::domain

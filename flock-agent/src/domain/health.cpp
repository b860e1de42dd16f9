// SPDX-License-Identifier: Apache-2.0
// Health checks and retries by compose's rules (compose-spec, 05-services.md, healthcheck).
#include <algorithm>

#include "domain/plan.h"

namespace flock::agent {
namespace {

using device::v1::HealthCheck;

constexpr Duration kDefaultTime{30'000};  // compose's interval and timeout
constexpr int kDefaultRetries = 3;

Duration or_default(std::int64_t milliseconds) {
  return milliseconds > 0 ? Duration(milliseconds) : kDefaultTime;
}

}  // namespace

std::optional<HealthCheck> check_of(const device::v1::Service& service, const Observed& container) {
  std::optional<HealthCheck> check;
  if (service.has_healthcheck())
    check = service.healthcheck();
  else
    check = container.image_check;
  if (!check || check->test_size() == 0 || check->test(0) == "NONE") return std::nullopt;
  return check;
}

Duration probe_timeout(const HealthCheck& check) { return or_default(check.timeout_ms()); }

void note_probe(Memory& memory, const HealthCheck& check, bool good, SteadyPoint now) {
  const Duration interval = or_default(check.interval_ms());
  memory.probe_at = now + interval;
  if (good) {
    memory.health = Health::kHealthy;
    memory.bad_probes = 0;
    memory.count_at = now + interval;
    return;
  }
  if (memory.health == Health::kChecking) {
    memory.probe_at = now + std::min(interval, Duration(1000));
    if (now < memory.running_since + Duration(check.start_period_ms())) return;
    // The engine's first probe would come one interval after the start.
    if (memory.bad_probes == 0 && now < memory.running_since + interval) return;
  }
  if (now < memory.count_at) return;
  memory.count_at = now + interval;
  const int allowed = check.retries() > 0 ? static_cast<int>(check.retries()) : kDefaultRetries;
  if (++memory.bad_probes >= allowed) {
    memory.health = Health::kUnhealthy;
    memory.probe_at = now + interval;
  }
}

Duration retry_pause(int failures) {
  Duration pause(1000);
  for (int i = 1; i < failures && pause < Duration(60'000); ++i) pause *= 2;
  return std::min(pause, Duration(60'000));
}

void note_failure(Attempts& attempts, std::string code, std::string error, SteadyPoint now) {
  if (attempts.failures == 0) attempts.since = now;
  ++attempts.failures;
  attempts.error_code = std::move(code);
  attempts.error = std::move(error);
  attempts.retry_at = now + retry_pause(attempts.failures);
}

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
#include <deque>
#include <map>

#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/log.h"
#include "flock/internal/v1/internal.pb.h"
#include "metrics/metrics.h"
#include "services/desired_states.h"
#include "services/release_retention.h"
#include "services/retention.h"
#include "services/rollout_driver.h"
#include "services/rollout_engine.h"
#include "stores/postgres/count_statements.h"
#include "targets/target.h"

namespace flock::targets {
namespace {

using postgres::Scope;

constexpr std::int64_t kLeaderLock = 0x666c6f636b02;  // "flock", 2
constexpr std::int64_t kRetentionLock = 0x666c6f636b03;
constexpr Duration kPoll{2000};
constexpr int kRereadEvery = 5;  // rounds
constexpr Duration kRetireEvery{60'000}, kCountEvery{30'000};
constexpr Duration kExpireEvery{3'600'000};

class SchedulerTarget final : public Target {
 public:
  explicit SchedulerTarget(Parts parts)
      : parts_(std::move(parts)),
        driver_(parts_.db, parts_.live, parts_.bus, keys_of(parts_)),
        desired_(parts_.db, parts_.bus, keys_of(parts_)),
        engine_(parts_.db, parts_.bus),
        audit_(parts_.bus),
        scope_(parts_.executor),
        wake_(parts_.executor) {
    end_with(scope_, parts_.failed);
  }

  Task<void> start() override {
    mqtt::Subscription states;
    states.filter = "$share/scheduler/flock/internal/v1/device/state";
    co_await parts_.bus.subscribe(states, [this](mqtt::Delivery delivery) {
      reports_.push_back(std::move(delivery));
      arrival_.set();
    });
    for (const char* what : {"deployment/created", "rollout/ordered", "variables/changed"}) {
      mqtt::Subscription hints;
      hints.filter = std::string("flock/internal/v1/") + what;
      co_await parts_.bus.subscribe(hints, [this](mqtt::Delivery delivery) {
        delivery.ack();
        wake_.set();
      });
    }
    scope_.spawn("reports", take_reports());
    scope_.spawn("leader", lead());
    scope_.spawn("retention", keep_time());
  }
  Task<void> drain() override {
    scope_.cancel();
    co_await scope_.join();
  }
  Task<void> stop() override { co_return; }

 private:
  // Also without leadership: what one report changes is one idempotent statement.
  Task<void> take_reports() {
    for (;;) {
      while (reports_.empty()) {
        arrival_.reset();
        co_await arrival_.wait();
      }
      mqtt::Delivery delivery = std::move(reports_.front());
      reports_.pop_front();
      bool done = false, progress = false;
      try {
        internal::v1::DeviceStateChanged changed;
        if (changed.ParseFromString(delivery.message.payload)) {
          progress = co_await driver_.apply(OrgId::parse(changed.org_id()),
                                            DeviceId::parse(changed.device_id()), changed.state());
        }
        done = true;
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        // Only what time can heal is tried again: one bad report must not stop all that follow.
        done = error.code() != Code::kUnavailable && error.code() != Code::kTimeout &&
               error.code() != Code::kConflict;
        if (done)
          log::error("a device's report cannot be applied; it is dropped", error);
        else
          log::warn("cannot apply a device's report now", error);
      }
      if (done) {
        delivery.ack();
        // A round asks the database a dozen questions: not for each of thousands of reports.
        if (progress) wake_.set();
      } else {
        reports_.push_front(std::move(delivery));
        co_await sleep_for(Duration(1000));
      }
    }
  }

  Task<void> lead() {
    co_await parts_.db.lead(kLeaderLock, [this] { return drive(); });
  }

  // 1 for as long as it lives.
  struct Leading {
    explicit Leading(metrics::Gauge& gauge) : gauge_(gauge) { gauge_.set(1); }
    ~Leading() { gauge_.set(0); }
    Leading(const Leading&) = delete;
    Leading& operator=(const Leading&) = delete;

   private:
    metrics::Gauge& gauge_;
  };

  Task<void> drive() {
    const Leading leading(leader_);
    SteadyPoint count_at{};
    SteadyPoint retire_at = std::chrono::steady_clock::now() + kRetireEvery;
    for (int round = 0;; ++round) {
      wake_.reset();
      co_await step("beginning deployments", engine_.begin_deployments());
      co_await step("adopting newcomers", engine_.adopt_newcomers());
      co_await step("hearing of devices", engine_.hear_of_devices());
      co_await step("advancing rollouts", engine_.advance());
      co_await step("telling of rollouts", driver_.tell_turns());
      co_await step("making desired states", desired_.make_begun());
      co_await step("making desired states anew", desired_.rebuild_stale());
      co_await step("publishing desired state", driver_.publish_desired());
      co_await step("clearing desired states", driver_.clear_removed());
      if (round % kRereadEvery == 0) {
        co_await step("rereading reports", driver_.reread_reports());
        co_await step("putting tallies together", engine_.fold_tallies());
      }
      if (std::chrono::steady_clock::now() >= count_at) {
        co_await step("counting for the metrics", count());
        count_at = std::chrono::steady_clock::now() + kCountEvery;
      }
      if (std::chrono::steady_clock::now() >= retire_at) {
        co_await step("removing old releases", retire());
        retire_at = std::chrono::steady_clock::now() + kRetireEvery;
      }
      co_await wake_.wait_for(kPoll);
    }
  }

  Task<void> count() {
    const auto devices = co_await parts_.db.query(Scope::system(), postgres::sql::kDeviceCounts);
    for (const char* state : {"online", "offline"})
      metrics::Gauge("flock_devices", "Devices that may come in, by presence.", {{"state", state}})
          .set(static_cast<double>(devices.rows.front().integer(state)));
    const auto rollouts = co_await parts_.db.query(Scope::system(), postgres::sql::kRolloutCounts);
    std::map<std::string, std::int64_t> states;
    for (int i = 0; i <= static_cast<int>(domain::RolloutState::kSuperseded); ++i)
      states[std::string(name_of(static_cast<domain::RolloutState>(i)))] = 0;
    for (const auto& row : rollouts.rows) states[row.text("state")] = row.integer("count");
    for (const auto& [state, number] : states)
      metrics::Gauge("flock_rollouts", "Rollouts, by state.", {{"state", state}})
          .set(static_cast<double>(number));
  }

  // Apart from the rollouts, which must not wait for ClickHouse.
  Task<void> keep_time() {
    co_await parts_.db.lead(kRetentionLock, [this] { return expire_forever(); });
  }
  Task<void> expire_forever() {
    const Settings& settings = parts_.settings;
    const services::Retention defaults{static_cast<int>(settings.retention_telemetry_days),
                                       static_cast<int>(settings.retention_logs_days)};
    for (;;) {
      co_await step("removing old time series",
                    services::expire_time_series(parts_.db, parts_.time_series, defaults));
      co_await sleep_for(kExpireEvery);
    }
  }

  Task<void> retire() { co_await services::retire_releases(parts_.db, audit_); }

  // Each step stands alone: a broker that is away must not keep rollouts from being judged.
  static Task<void> step(const char* what, Task<void> work) {
    try {
      co_await std::move(work);
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      log::warn("a step of the scheduler failed; it is repeated", error, {{"step", what}});
    }
  }

  Parts parts_;
  services::RolloutDriver driver_;
  services::DesiredStates desired_;
  services::RolloutEngine engine_;
  services::AuditTrail audit_;
  TaskScope scope_;
  Event wake_;
  Event arrival_{parts_.executor};
  std::deque<mqtt::Delivery> reports_;
  metrics::Gauge leader_{"flock_leader", "1 while this target leads.", {{"target", "scheduler"}}};
};

}  // namespace

std::unique_ptr<Target> make_scheduler_target(Parts parts) {
  return std::make_unique<SchedulerTarget>(std::move(parts));
}

}  // namespace flock::targets

// SPDX-License-Identifier: Apache-2.0
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/log.h"
#include "flock/internal/v1/internal.pb.h"
#include "metrics/metrics.h"
#include "services/desired_states.h"
#include "services/gate_checks.h"
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
constexpr std::int64_t kChecksLock = 0x666c6f636b04;
constexpr Duration kPoll{2000};
// News come by the thousand, and a round asks the database a dozen questions.
constexpr Duration kBetweenRounds{100};
constexpr std::size_t kReportsAtOnce = 500;
constexpr Duration kSweepEvery{1000}, kRereadEvery{5000}, kRetireEvery{60'000}, kCountEvery{30'000};
constexpr Duration kExpireEvery{3'600'000};

// What is due now and then, the first time at once.
class Timer {
 public:
  explicit Timer(Duration every) : every_(every) {}
  bool due() {
    const SteadyPoint now = std::chrono::steady_clock::now();
    if (now < next_) return false;
    next_ = now + every_;
    return true;
  }

 private:
  Duration every_;
  SteadyPoint next_{};
};

class SchedulerTarget final : public Target {
 public:
  explicit SchedulerTarget(Parts parts)
      : parts_(std::move(parts)),
        driver_(parts_.db, parts_.live, parts_.bus, keys_of(parts_)),
        checks_(parts_.db, parts_.time_series, keys_of(parts_), webhook_rules(parts_.settings),
                [this] { wake_.set(); }),
        audit_(parts_.bus),
        scope_(parts_.executor),
        wake_(parts_.executor) {
    end_with(scope_, parts_.failed);
  }

  Task<void> start() override {
    mqtt::Subscription states;
    states.filter = "$share/scheduler/flock/internal/v1/device/state";
    co_await parts_.bus.subscribe(states, [this](mqtt::Delivery delivery) {
      internal::v1::DeviceStateChanged changed;
      try {
        if (changed.ParseFromString(delivery.message.payload)) {
          services::DeviceReport report{OrgId::parse(changed.org_id()),
                                        DeviceId::parse(changed.device_id()), changed.state()};
          reports_.push_back({std::move(delivery), std::move(report)});
          arrival_.set();
          return;
        }
      } catch (const Error& error) {
        log::error("a device's report names no device; it is dropped", error);
      }
      delivery.ack();
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
    scope_.spawn("gates", check_gates());
  }
  Task<void> drain() override {
    scope_.cancel();
    co_await scope_.join();
  }
  Task<void> stop() override { co_return; }

 private:
  struct Arrived {
    mqtt::Delivery delivery;
    services::DeviceReport report;
  };
  using Batch = std::vector<Arrived>;

  // Also without leadership: what reports change is one idempotent statement.
  Task<void> take_reports() {
    for (;;) {
      while (reports_.empty()) {
        arrival_.reset();
        co_await arrival_.wait();
      }
      Batch batch = next_batch();
      if (co_await take(batch)) continue;
      for (; !batch.empty(); batch.pop_back()) reports_.push_front(std::move(batch.back()));
      co_await sleep_for(Duration(1000));
    }
  }

  // What waits, of each device one: its next one says more.
  Batch next_batch() {
    Batch batch;
    std::set<DeviceId> devices;
    while (!reports_.empty() && batch.size() < kReportsAtOnce &&
           devices.insert(reports_.front().report.device).second) {
      batch.push_back(std::move(reports_.front()));
      reports_.pop_front();
    }
    return batch;
  }

  // False when time may heal what failed. Of a batch that cannot be applied each is tried alone:
  // one bad report must not stop the others.
  Task<bool> take(Batch& batch) {
    std::optional<Error> failure;
    try {
      std::vector<services::DeviceReport> reports;
      for (const Arrived& one : batch) reports.push_back(one.report);
      // A round asks the database a dozen questions: not for each of thousands of reports.
      if (co_await driver_.apply(std::move(reports))) wake_.set();
    } catch (const Error& error) {
      failure = error;
    }
    if (failure) {
      const Code code = failure->code();
      if (code == Code::kCancelled) throw *failure;
      if (code == Code::kUnavailable || code == Code::kTimeout || code == Code::kConflict) {
        log::warn("cannot apply devices' reports now", *failure);
        co_return false;
      }
      if (batch.size() > 1) co_return co_await take_apart(batch);
      log::error("a device's report cannot be applied; it is dropped", *failure);
    }
    for (Arrived& one : batch) one.delivery.ack();
    batch.clear();
    co_return true;
  }

  // Leaves in the batch what is still to be done.
  Task<bool> take_apart(Batch& batch) {
    for (; !batch.empty(); batch.erase(batch.begin())) {
      Batch one;
      one.push_back(std::move(batch.front()));
      if (co_await take(one)) continue;
      batch.front() = std::move(one.front());
      co_return false;
    }
    co_return true;
  }

  Task<void> lead() {
    co_await parts_.db.lead(kLeaderLock, [this](postgres::Term term) { return drive(term); });
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

  Task<void> drive(postgres::Term term) {
    const Leading leading(leader_);
    services::RolloutEngine engine(term, parts_.bus);
    services::DesiredStates desired(term, parts_.bus, keys_of(parts_));
    Timer sweep(kSweepEvery), reread(kRereadEvery), counting(kCountEvery), retiring(kRetireEvery);
    retiring.due();  // not at once
    for (;;) {
      wake_.reset();
      co_await step("beginning deployments", engine.begin_deployments());
      co_await step("adopting newcomers", engine.adopt_newcomers());
      if (sweep.due()) co_await step("sweeping up latecomers", engine.sweep_latecomers());
      co_await step("hearing of devices", engine.hear_of_devices());
      co_await step("advancing rollouts", engine.advance());
      co_await step("telling of rollouts", driver_.tell_turns());
      co_await step("making desired states", go_on_if(desired.make_begun()));
      co_await step("making desired states anew", desired.rebuild_stale());
      co_await step("publishing desired state", go_on_if(driver_.publish_desired()));
      co_await step("clearing desired states", driver_.clear_removed());
      if (reread.due()) {
        co_await step("rereading reports", driver_.reread_reports());
        co_await step("putting tallies together", engine.fold_tallies());
      }
      if (counting.due()) co_await step("counting for the metrics", count());
      if (retiring.due()) co_await step("removing old releases", retire());
      co_await sleep_for(kBetweenRounds);
      co_await wake_.wait_for(kPoll);
    }
  }

  // There is more to do: the next round does not wait for news.
  Task<void> go_on_if(Task<bool> more) {
    if (co_await std::move(more)) wake_.set();
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

  // Apart from the rollouts, which must not wait for ClickHouse or for a service of an operator.
  Task<void> check_gates() {
    co_await parts_.db.lead(kChecksLock, [this](postgres::Term) { return checks_.run(); });
  }
  Task<void> keep_time() {
    co_await parts_.db.lead(kRetentionLock, [this](postgres::Term) { return expire_forever(); });
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
      if (error.code() == Code::kCancelled || postgres::deposed(error)) throw;
      log::warn("a step of the scheduler failed; it is repeated", error, {{"step", what}});
    }
  }

  Parts parts_;
  services::RolloutDriver driver_;
  services::GateChecks checks_;
  services::AuditTrail audit_;
  TaskScope scope_;
  Event wake_;
  Event arrival_{parts_.executor};
  std::deque<Arrived> reports_;
  metrics::Gauge leader_{"flock_leader", "1 while this target leads.", {{"target", "scheduler"}}};
};

}  // namespace

std::unique_ptr<Target> make_scheduler_target(Parts parts) {
  return std::make_unique<SchedulerTarget>(std::move(parts));
}

}  // namespace flock::targets

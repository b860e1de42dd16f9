// SPDX-License-Identifier: Apache-2.0
#include <deque>

#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/log.h"
#include "flock/internal/v1/internal.pb.h"
#include "services/rollout_driver.h"
#include "targets/target.h"

namespace flock::targets {
namespace {

constexpr std::int64_t kLeaderLock = 0x666c6f636b02;  // "flock", 2
constexpr Duration kPoll{2000};
constexpr int kRereadEvery = 5;  // rounds

class SchedulerTarget final : public Target {
 public:
  explicit SchedulerTarget(Parts parts)
      : parts_(std::move(parts)),
        driver_(parts_.db, parts_.live, parts_.bus),
        scope_(parts_.executor),
        wake_(parts_.executor) {}

  Task<void> start() override {
    mqtt::Subscription states, hints;
    states.filter = "$share/scheduler/flock/internal/v1/device/state";
    hints.filter = "flock/internal/v1/deployment/created";
    co_await parts_.bus.subscribe(states, [this](mqtt::Delivery delivery) {
      reports_.push_back(std::move(delivery));
      arrival_.set();
    });
    co_await parts_.bus.subscribe(hints, [this](mqtt::Delivery delivery) {
      delivery.ack();
      wake_.set();
    });
    scope_.spawn("reports", take_reports());
    scope_.spawn("leader", lead());
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
      bool done = false;
      try {
        internal::v1::DeviceStateChanged changed;
        if (changed.ParseFromString(delivery.message.payload)) {
          co_await driver_.apply(OrgId::parse(changed.org_id()),
                                 DeviceId::parse(changed.device_id()), changed.state());
        }
        done = true;
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        log::warn("cannot apply a device's report now", error);
      }
      if (done) {
        delivery.ack();
        wake_.set();
      } else {
        reports_.push_front(std::move(delivery));
        co_await sleep_for(Duration(1000));
      }
    }
  }

  Task<void> lead() {
    co_await parts_.db.lead(kLeaderLock, [this] { return drive(); });
  }

  Task<void> drive() {
    for (int round = 0;; ++round) {
      try {
        wake_.reset();
        co_await driver_.execute_deployments();
        co_await driver_.adopt_latecomers();
        co_await driver_.publish_desired();
        if (round % kRereadEvery == 0) co_await driver_.reread_reports();
        co_await driver_.judge();
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        log::warn("the scheduler's round failed; it is repeated", error);
      }
      co_await wake_.wait_for(kPoll);
    }
  }

  Parts parts_;
  services::RolloutDriver driver_;
  TaskScope scope_;
  Event wake_;
  Event arrival_{parts_.executor};
  std::deque<mqtt::Delivery> reports_;
};

}  // namespace

std::unique_ptr<Target> make_scheduler_target(Parts parts) {
  return std::make_unique<SchedulerTarget>(std::move(parts));
}

}  // namespace flock::targets

// SPDX-License-Identifier: Apache-2.0
// Takes what devices send (docs/ingest.md): reports and events one way, telemetry and logs another,
// so that neither waits for the other's stores.
#include "async/deadline.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/log.h"
#include "targets/ingester/peers.h"
#include "targets/ingester/presence_book.h"
#include "targets/ingester/quarantine.h"
#include "targets/ingester/series_lane.h"
#include "targets/ingester/state_lane.h"
#include "targets/target.h"

namespace flock::targets {
namespace {

using namespace ingester;
using internal::v1::SpooledMessage;

constexpr Duration kLeave{3000};

class IngesterTarget final : public Target {
 public:
  explicit IngesterTarget(Parts parts)
      : parts_(std::move(parts)),
        series_bus_(parts_.series_bus != nullptr ? *parts_.series_bus : parts_.bus),
        scope_(parts_.executor),
        devices_(parts_.db),
        quarantine_(folder("quarantine"), {"flock_ingest_quarantined_total",
                                           "Messages that cannot be used and were put aside."}),
        peers_(parts_.replica),
        presence_(parts_, devices_, peers_, [this](const Turn& turn) { states_.remember(turn); }),
        telemetry_(parts_.executor, parts_.time_series, devices_, quarantine_,
                   lane(SpooledMessage::TELEMETRY, "telemetry")),
        logs_(parts_.executor, parts_.time_series, devices_, quarantine_,
              lane(SpooledMessage::LOGS, "logs")),
        history_(parts_.executor, parts_.time_series, devices_, quarantine_,
                 lane(SpooledMessage::PRESENCE, "history")),
        states_(parts_, devices_, presence_, history_, quarantine_) {
    end_with(scope_, parts_.failed);
  }

  Task<void> start() override {
    co_await peers_.join(parts_.bus);
    co_await take(parts_.bus, "state", [this](mqtt::Delivery d) { states_.arrived(std::move(d)); });
    co_await take(parts_.bus, "events",
                  [this](mqtt::Delivery d) { states_.arrived(std::move(d)); });
    co_await take(series_bus_, "telemetry",
                  [this](mqtt::Delivery d) { telemetry_.arrived(std::move(d)); });
    co_await take(series_bus_, "logs", [this](mqtt::Delivery d) { logs_.arrived(std::move(d)); });
    scope_.spawn("states", states_.run());
    scope_.spawn("telemetry", telemetry_.run());
    scope_.spawn("logs", logs_.run());
    scope_.spawn("history", history_.run());
    scope_.spawn("presence", presence_.sweep());
  }
  Task<void> drain() override {
    if (parts_.bus.connected() && series_bus_.connected()) {
      try {
        Task<void> leaving = leave();
        co_await with_deadline(std::move(leaving), kLeave, "finishing what devices sent");
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        // What is not acknowledged waits in the session for this ingester's next start.
        log::warn("the ingester leaves messages behind", error);
      }
    }
    scope_.cancel();
    co_await scope_.join();
  }
  Task<void> stop() override { co_return; }

 private:
  // The others take over, or devices send again; then what was given to this one is finished.
  Task<void> leave() {
    for (const char* leaf : {"state", "events"}) co_await parts_.bus.unsubscribe(filter_of(leaf));
    for (const char* leaf : {"telemetry", "logs"})
      co_await series_bus_.unsubscribe(filter_of(leaf));
    co_await peers_.leave(parts_.bus);
    // More may be on its way from the broker; the only one finds it again at its next start.
    const int enough = parts_.replica.empty() ? 1 : 10;
    for (int quiet = 0; quiet < enough; ++quiet) {
      if (!states_.idle() || !telemetry_.idle() || !logs_.idle() || !history_.idle()) quiet = 0;
      co_await sleep_for(Duration(20));
    }
  }

  std::string folder(const char* name) const {
    return parts_.settings.ingester_spool_directory + "/" + name;
  }
  SeriesLane::Options lane(SeriesLane::Kind kind, const char* name) {
    return {kind, name, folder(name), parts_.settings.ingester_spool_bytes,
            [this] { series_bus_.reconnect(); }};
  }
  static std::string filter_of(const char* leaf) {
    return std::string("$share/ingester/devices/+/") + leaf;
  }
  static Task<void> take(mqtt::Client& bus, const char* leaf,
                         std::function<void(mqtt::Delivery)> handler) {
    mqtt::Subscription subscription;
    subscription.filter = filter_of(leaf);
    co_await bus.subscribe(subscription, std::move(handler));
  }

  Parts parts_;
  mqtt::Client& series_bus_;
  TaskScope scope_;
  Devices devices_;
  Quarantine quarantine_;
  Peers peers_;
  PresenceBook presence_;
  // History has a spool of its own: floods of lines must not push it out.
  SeriesLane telemetry_, logs_, history_;
  StateLane states_;
};

}  // namespace

mqtt::Message ingester_will(const std::string& replica) { return Peers::will(replica); }

std::unique_ptr<Target> make_ingester_target(Parts parts) {
  return std::make_unique<IngesterTarget>(std::move(parts));
}

}  // namespace flock::targets

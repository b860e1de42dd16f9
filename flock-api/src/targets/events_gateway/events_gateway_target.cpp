// SPDX-License-Identifier: Apache-2.0
// Turns what the targets tell each other into what customers read (docs/events.md). An internal
// message is acknowledged when the broker has the customer's event, so after a crash it comes again
// and becomes the same event under the same id.
#include "async/backoff.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/log.h"
#include "domain/customer_events.h"
#include "metrics/metrics.h"
#include "targets/events_gateway/subjects.h"
#include "targets/ingester/inbox.h"
#include "targets/ingester/quarantine.h"
#include "targets/target.h"

namespace flock::targets {
namespace {

using ingester::Poison;

constexpr std::string_view kPrefix = "flock/internal/v1/";
constexpr std::size_t kBatch = 512, kInboxBytes = 64 << 20;
constexpr std::size_t kChunkBytes = 4 << 20;  // on their way to the broker at a time

metrics::Counter counter(const std::string& result) {
  return {"flock_customer_events_total",
          "Internal messages for customers, by what became of them.",
          {{"result", result}}};
}

const char* missing(domain::InternalEvent::About about) {
  using About = domain::InternalEvent::About;
  return about == About::kDevice    ? "its organization has no such device"
         : about == About::kRollout ? "its organization has no such rollout"
                                    : "its organization has no such deployment";
}

class EventsGatewayTarget final : public Target {
 public:
  explicit EventsGatewayTarget(Parts parts)
      : parts_(std::move(parts)),
        scope_(parts_.executor),
        inbox_(parts_.executor, kInboxBytes),
        quarantine_(parts_.settings.events_gateway_quarantine_directory, counter("quarantined")) {
    end_with(scope_, parts_.failed);
  }

  Task<void> start() override {
    scope_.spawn("events", run());
    for (const char* what : {"device/+", "rollout/state", "deployment/created"}) {
      mqtt::Subscription subscription;
      subscription.filter = "$share/events-gateway/" + std::string(kPrefix) + what;
      try {
        co_await parts_.bus.subscribe(
            subscription, [this](mqtt::Delivery delivery) { inbox_.push(std::move(delivery)); });
      } catch (const Error& error) {
        if (error.code() != Code::kTimeout) throw;  // the client repeats it
      }
    }
  }
  // What was not passed on waits in the broker's session for the next start.
  Task<void> drain() override {
    scope_.cancel();
    co_await scope_.join();
  }
  Task<void> stop() override { co_return; }

 private:
  using Batch = std::vector<mqtt::Delivery>;

  Task<void> run() {
    for (;;) {
      co_await inbox_.wait();
      Batch batch;
      inbox_.pop(batch, kBatch);
      const SteadyPoint began = std::chrono::steady_clock::now();
      co_await pass_on_at_last(batch);
      for (mqtt::Delivery& delivery : batch) {
        inbox_.finished(ingester::Inbox::size_of(delivery));
        delivery.ack();
      }
      duration_.observe(
          std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
      if (inbox_.wants_more()) parts_.bus.reconnect();
    }
  }

  // Until the database answers and the broker has them; those it had already are repeated.
  Task<void> pass_on_at_last(const Batch& batch) {
    for (Backoff backoff(Duration(200), Duration(5000));;) {
      try {
        co_await pass_on(batch);
        co_return;
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        delayed_.add(static_cast<double>(batch.size()));
        log::warn("events for customers wait", error, {{"events", batch.size()}});
      }
      co_await sleep_for(backoff.next());
    }
  }

  Task<void> pass_on(const Batch& batch) {
    std::vector<Poison> aside;
    std::vector<domain::InternalEvent> events;
    std::vector<const mqtt::Message*> sources;  // of the events
    for (const mqtt::Delivery& delivery : batch) {
      const mqtt::Message& message = delivery.message;
      try {
        auto event = domain::read_internal_event(
            std::string_view(message.topic).substr(kPrefix.size()), message.payload);
        if (!event) continue;
        events.push_back(std::move(*event));
        sources.push_back(&message);
      } catch (const Error& error) {
        if (error.code() != Code::kInvalidArgument) throw;
        aside.push_back(ingester::make_poison(message.topic, message.payload, error.message()));
      }
    }
    const auto subjects = co_await events_gateway::find_subjects(parts_.db, events);
    std::vector<Task<void>> sending;
    std::size_t bytes = 0, published = 0;
    for (std::size_t i = 0; i < events.size(); ++i) {
      const auto subject = subjects.find({events[i].org, events[i].subject});
      if (subject == subjects.end()) {
        aside.push_back(ingester::make_poison(sources[i]->topic, sources[i]->payload,
                                              missing(events[i].about)));
        continue;
      }
      const auto event = domain::customer_event(std::move(events[i]), subject->second);
      bytes += event.payload.size();
      sending.push_back(publish(event, *sources[i], aside, published));
      if (bytes < kChunkBytes) continue;
      co_await run_all(std::exchange(sending, {}));
      bytes = 0;
    }
    co_await run_all(std::move(sending));
    co_await quarantine_.put(std::move(aside));
    published_.add(static_cast<double>(published));
  }

  // The arguments outlive it: they are those of pass_on().
  Task<void> publish(domain::CustomerEvent event, const mqtt::Message& source,
                     std::vector<Poison>& aside, std::size_t& published) {
    mqtt::Message message;
    message.topic = std::move(event.topic);
    message.payload = std::move(event.payload);
    message.content_type = "application/json";
    message.user_properties = {{"event_id", std::move(event.id)}, {"org_id", std::move(event.org)}};
    try {
      co_await parts_.bus.publish(std::move(message));
      ++published;
    } catch (const Error& error) {
      if (error.code() != Code::kTooLarge) throw;
      aside.push_back(ingester::make_poison(source.topic, source.payload,
                                            "as an event it is too large for the broker"));
    }
  }

  Parts parts_;
  TaskScope scope_;
  ingester::Inbox inbox_;
  ingester::Quarantine quarantine_;
  metrics::Counter published_ = counter("published"), delayed_ = counter("delayed");
  metrics::Histogram duration_{
      "flock_customer_events_batch_duration_seconds",
      "From taking a batch of internal messages until the broker has the customers' events."};
};

}  // namespace

std::unique_ptr<Target> make_events_gateway_target(Parts parts) {
  return std::make_unique<EventsGatewayTarget>(std::move(parts));
}

}  // namespace flock::targets

// SPDX-License-Identifier: Apache-2.0
// Writes who did what. What is acknowledged to the broker is on disk; what cannot be stored stays
// with the broker, and when that lasts, publishers are told that nobody hears.
#include "targets/audit/audit_target.h"

#include <boost/json.hpp>
#include <deque>

#include "async/backoff.h"
#include "async/blocking.h"
#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "flock/internal/v1/internal.pb.h"
#include "metrics/metrics.h"
#include "stores/audit/segments.h"
#include "targets/target.h"

namespace flock::targets {
namespace {

using internal::v1::AuditEvent;

constexpr std::size_t kBatch = 256;
constexpr std::size_t kTextLimit = 1024;  // of one field
constexpr Duration kDeafAfter{3000};      // of not being able to write

std::string kind_of(AuditEvent::ActorKind kind) {
  switch (kind) {
    case AuditEvent::USER:
      return "user";
    case AuditEvent::API_KEY:
      return "api_key";
    case AuditEvent::DEVICE:
      return "device";
    case AuditEvent::SYSTEM:
      return "system";
    default:
      return "unknown";
  }
}

class AuditTarget final : public Target {
 public:
  explicit AuditTarget(Parts parts)
      : parts_(std::move(parts)),
        store_(make_audit_store(parts_.executor, parts_.settings)),
        scope_(parts_.executor),
        arrival_(parts_.executor) {
    end_with(scope_, parts_.failed);
  }

  Task<void> start() override {
    co_await open();
    scope_.spawn("store", store_->run());
    scope_.spawn("write", write());
    co_await listen();
  }
  Task<void> drain() override {
    scope_.cancel();
    co_await scope_.join();
  }
  Task<void> stop() override { co_return; }

 private:
  // Waits for a disk, for Loki where the spool is new, and for another writer's end.
  Task<void> open() {
    for (Backoff backoff(Duration(500), Duration(10'000));;) {
      try {
        co_await store_->open();
        co_return;
      } catch (const Error& error) {
        if (error.code() != Code::kUnavailable && error.code() != Code::kTimeout) throw;
        log::warn("the audit log cannot be written yet", error);
      }
      co_await sleep_for(backoff.next());
    }
  }

  Task<void> listen() {
    mqtt::Subscription subscription;
    subscription.filter = kAuditTopic;
    listening_ = true;
    try {
      co_await parts_.bus.subscribe(subscription, [this](mqtt::Delivery delivery) {
        queue_.push_back(std::move(delivery));
        arrival_.set();
      });
    } catch (const Error& error) {
      if (error.code() != Code::kTimeout) throw;  // the client repeats it
    }
  }

  Task<void> write() {
    for (;;) {
      while (queue_.empty()) {
        arrival_.reset();
        co_await arrival_.wait();
      }
      std::vector<mqtt::Delivery> batch;
      while (!queue_.empty() && batch.size() < kBatch) {
        batch.push_back(std::move(queue_.front()));
        queue_.pop_front();
      }
      co_await keep(batch);
      for (mqtt::Delivery& delivery : batch) delivery.ack();
    }
  }

  // Until it is durable. Unacknowledged messages fill the session first; a broker would drop what
  // is beyond its queue, so the subscription ends and publishers fail instead.
  Task<void> keep(const std::vector<mqtt::Delivery>& batch) {
    Backoff backoff(Duration(200), Duration(5000));
    const SteadyPoint began = std::chrono::steady_clock::now();
    std::vector<audit::Event> events;
    std::vector<const mqtt::Message*> unreadable;
    for (const mqtt::Delivery& delivery : batch) {
      if (auto event = read_audit_event(delivery.message.payload))
        events.push_back(std::move(*event));
      else
        unreadable.push_back(&delivery.message);
    }
    for (;;) {
      try {
        co_await store_->append(events);
        co_await put_aside(unreadable);
        written_.add(static_cast<double>(events.size()));
        unreadable_.add(static_cast<double>(unreadable.size()));
        break;
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        delayed_.add(static_cast<double>(events.size()));
        log::warn("the audit log cannot be written; trying again", error,
                  {{"events", events.size()}});
      }
      if (std::chrono::steady_clock::now() - began > kDeafAfter) co_await go_deaf();
      co_await sleep_for(backoff.next());
    }
    if (listening_) co_return;
    co_await listen();
    log::info("the audit log is written again");
  }

  // Again with every try: a connection that was lost meanwhile comes back with its subscription.
  Task<void> go_deaf() {
    if (listening_)
      log::write(log::Level::kError,
                 "nothing can be changed until the audit log can be written again", {});
    listening_ = false;
    co_await parts_.bus.unsubscribe(kAuditTopic);
  }

  // What no later try could read; kept for people. More than once after a kill.
  Task<void> put_aside(std::vector<const mqtt::Message*> messages) {
    if (messages.empty()) co_return;
    std::string text;
    for (const mqtt::Message* message : messages) {
      log::write(log::Level::kError, "an audit event cannot be read and was put aside",
                 {{"bytes", message->payload.size()}});
      text += boost::json::serialize(
                  boost::json::object{{"at", to_rfc3339(system_clock().now())},
                                      {"payload_base64", to_base64(message->payload)}}) +
              "\n";
    }
    co_await BlockingPool::shared().run_void([this, &text] {
      const std::string& folder = parts_.settings.audit_spool_directory;
      make_folders(folder);
      stores::segments::append(folder + "/unreadable.jsonl", text);
    });
  }

  Parts parts_;
  std::unique_ptr<stores::AuditStore> store_;
  TaskScope scope_;
  Event arrival_;
  std::deque<mqtt::Delivery> queue_;
  bool listening_ = false;
  static metrics::Counter counter(const std::string& result) {
    return {"flock_audit_events_total",
            "Events of the audit log, by what became of a write.",
            {{"result", result}}};
  }
  metrics::Counter written_ = counter("written"), unreadable_ = counter("unreadable"),
                   delayed_ = counter("delayed");
};

}  // namespace

std::unique_ptr<stores::AuditStore> make_audit_store(Executor executor, const Settings& settings) {
  if (settings.audit_kind == "file") return stores::make_file_audit_store(settings.audit_directory);
  stores::LokiOptions options;
  options.url = settings.audit_loki_url;
  while (options.url.ends_with('/')) options.url.pop_back();
  options.tenant = settings.audit_loki_tenant;
  options.token_file = settings.audit_loki_token_file;
  options.spool_directory = settings.audit_spool_directory;
  options.spool_bytes = settings.audit_spool_bytes;
  return stores::make_loki_audit_store(executor, std::move(options));
}

std::optional<audit::Event> read_audit_event(const std::string& payload) {
  AuditEvent in;
  if (!in.ParseFromString(payload)) return std::nullopt;
  // The ids name folders and lines; without an action it says nothing.
  if (!is_uuid(in.id()) || !is_uuid(in.org_id()) || in.action().empty() || in.at_ms() <= 0 ||
      in.at_ms() > 253'402'300'799'999)
    return std::nullopt;
  audit::Event out;
  out.id = in.id();
  out.org = in.org_id();
  out.at = from_unix_ms(in.at_ms());
  out.actor_kind = kind_of(in.actor_kind());
  const auto text = [](const std::string& value) { return value.substr(0, kTextLimit); };
  out.actor_id = text(in.actor_id());
  out.actor_name = text(in.actor_name());
  out.action = text(in.action());
  out.resource_type = text(in.resource_type());
  out.resource_id = text(in.resource_id());
  out.resource_name = text(in.resource_name());
  out.request_id = text(in.request_id());
  out.ip = text(in.ip());
  out.outcome =
      in.outcome() == AuditEvent::ABORTED ? audit::Outcome::kAborted : audit::Outcome::kDone;
  out.detail = audit::canonical_detail(in.detail_json());
  return out;
}

std::unique_ptr<Target> make_audit_target(Parts parts) {
  return std::make_unique<AuditTarget>(std::move(parts));
}

}  // namespace flock::targets

// SPDX-License-Identifier: Apache-2.0
#include "services/audit_trail.h"

#include "async/deadline.h"
#include "base/error.h"
#include "base/log.h"

namespace flock::services {
namespace {

constexpr Duration kRecordTime{5000};
constexpr Duration kAbortTime{30'000};

mqtt::Message message_of(const internal::v1::AuditEvent& event) {
  mqtt::Message message;
  message.topic = "flock/internal/v1/audit";
  message.payload = event.SerializeAsString();
  message.must_be_heard = true;
  return message;
}

}  // namespace

Task<void> AuditTrail::record(internal::v1::AuditEvent event) {
  std::string why = "the broker is away";
  if (bus_.connected()) {
    try {
      co_await with_deadline(bus_.publish(message_of(event)), kRecordTime, "writing the audit log");
      co_return;
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      log::warn("the audit log could not be written", error, {{"action", event.action()}});
      why = error.message();
    }
  }
  throw Error(Code::kUnavailable, "the audit log cannot be written, so nothing was changed: " + why)
      .hint("nothing changes without a trace; try again when the broker and the audit target run");
}

Task<void> AuditTrail::aborted(internal::v1::AuditEvent event) {
  event.set_outcome(internal::v1::AuditEvent::ABORTED);
  try {
    co_await with_deadline(bus_.publish(message_of(event)), kAbortTime, "writing the audit log");
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    log::error("the audit log names a change that did not happen", error,
               {{"audit_id", event.id()}, {"action", event.action()}});
  }
}

}  // namespace flock::services

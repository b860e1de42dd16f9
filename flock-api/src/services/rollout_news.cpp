// SPDX-License-Identifier: Apache-2.0
#include "services/rollout_news.h"

#include "async/deadline.h"
#include "base/error.h"
#include "base/log.h"
#include "flock/internal/v1/internal.pb.h"

namespace flock::services {

Task<void> announce_rollout(mqtt::Bus& bus, std::string org, std::string rollout) {
  if (rollout.empty() || !bus.connected()) co_return;
  internal::v1::RolloutChanged changed;
  changed.set_org_id(org);
  changed.set_rollout_id(rollout);
  mqtt::Message message;
  message.topic = "flock/internal/v1/rollout/changed";
  message.payload = changed.SerializeAsString();
  try {
    co_await with_deadline(bus.publish(std::move(message)), kPublishTime, "announcing a rollout");
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    log::debug("a change of a rollout was not announced", error);
  }
}

}  // namespace flock::services

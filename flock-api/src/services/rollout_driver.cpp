// SPDX-License-Identifier: Apache-2.0
#include "services/rollout_driver.h"

#include <algorithm>

#include "async/deadline.h"
#include "base/error.h"
#include "base/log.h"
#include "domain/device_progress.h"
#include "flock/internal/v1/internal.pb.h"
#include "services/rollout_news.h"
#include "services/sealing.h"
#include "stores/postgres/rollout_statements.h"
#include "stores/postgres/variable_statements.h"

namespace flock::services {
namespace {

namespace sql = postgres::sql;
using postgres::Params;
using postgres::Row;
using postgres::Scope;

// How often one device that shows an old version is sent its desired state again.
constexpr Duration kRepublishEvery{10'000};

}  // namespace

Task<void> RolloutDriver::clear_removed() {
  const auto devices = co_await db_.query(Scope::system(), sql::kDevicesToClear);
  for (const Row& device : devices.rows) {
    if (!bus_.connected()) co_return;
    const std::string id = device.text("id");
    mqtt::Message message;  // MQTT 5, 3.3.1.3: an empty one removes what is retained
    message.topic = "devices/" + id + "/desired";
    message.retain = true;
    co_await with_deadline(bus_.publish(std::move(message)), kPublishTime,
                           "clearing a desired state");
    co_await db_.query(Scope::system(), sql::kDeviceCleared,
                       Params().text(device.text("org_id")).text(id));
  }
}

Task<void> RolloutDriver::publish_desired() {
  const auto devices = co_await db_.query(Scope::system(), sql::kUnpublished);
  for (const Row& device : devices.rows) {
    // A broker that is away must not keep the rounds from going on; the next one tries again.
    if (!bus_.connected()) co_return;
    const std::string org = device.text("org_id"), id = device.text("id");
    mqtt::Message message;
    message.topic = "devices/" + id + "/desired";
    try {
      message.payload = open_desired(keys_, org, id, device.bytes("desired"));
    } catch (const Error& error) {
      if (error.code() != Code::kCorrupt) throw;
      log::error("a desired state cannot be opened; it is not published", error, {{"device", id}});
      continue;
    }
    message.retain = true;
    co_await with_deadline(bus_.publish(std::move(message)), kPublishTime,
                           "publishing a desired state");
    const std::int64_t version = device.integer("desired_version");
    co_await db_.query(Scope::system(), sql::kPublished,
                       Params().text(org).text(id).integer(version));
    co_await db_.query(Scope::system(), sql::kRolloutDeviceDelivered,
                       Params()
                           .text(org)
                           .text(device.optional_text("desired_rollout_id"))
                           .text(id)
                           .integer(version));
    co_await announce_rollout(bus_, org, device.optional_text("desired_rollout_id").value_or(""));
  }
}

Task<bool> RolloutDriver::apply(OrgId org, DeviceId device, device::v1::ReportedState report) {
  const auto stored = co_await db_.query(
      Scope::system(), sql::kRolloutDesired,
      Params().text(org.text()).text(device.text()).integer(report.desired_version()));
  if (stored.empty()) {
    // It works on an older version: the broker may have lost the retained message.
    SteadyPoint& last = republished_[device];
    const SteadyPoint now = std::chrono::steady_clock::now();
    if (last != SteadyPoint() && now - last < kRepublishEvery) co_return false;
    last = now;
    const auto again = co_await db_.query(
        Scope::system(), sql::kRepublish,
        Params().text(org.text()).text(device.text()).integer(report.desired_version()));
    co_return again.affected > 0;
  }
  republished_.erase(device);
  if (!stored.rows.front().optional_text("desired")) co_return false;
  device::v1::DesiredState desired;
  if (!desired.ParseFromString(
          open_desired(keys_, org.text(), device.text(), stored.rows.front().bytes("desired"))))
    throw Error(Code::kCorrupt, "a stored desired state cannot be read")
        .with("device", device.text());
  const domain::DeviceProgress progress = domain::progress_of(report, desired);
  if (progress.state.empty()) co_return false;
  const auto changed = co_await db_.query(Scope::system(), sql::kRolloutDeviceState,
                                          Params()
                                              .text(org.text())
                                              .text(device.text())
                                              .integer(report.desired_version())
                                              .text(progress.state)
                                              .text(progress.reason)
                                              .boolean(progress.unhealthy)
                                              .boolean(progress.restarting));
  if (changed.empty()) co_return false;
  co_await announce_rollout(bus_, org.text(), changed.rows.front().text("rollout_id"));
  co_return true;
}

Task<void> RolloutDriver::reread_reports() {
  const auto running = co_await db_.query(Scope::system(), sql::kRolloutsOpen);
  for (const Row& rollout : running.rows) {
    const OrgId org = OrgId::trusted(rollout.text("org_id"));
    std::string after;
    do {
      after = co_await reread_page(org, rollout.text("id"), after);
    } while (!after.empty());
  }
}

// The last device of the page, or "" at the end.
Task<std::string> RolloutDriver::reread_page(OrgId org, std::string rollout, std::string after) {
  const auto open = co_await db_.query(Scope::system(), sql::kRolloutUnsettled,
                                       Params().text(org.text()).text(rollout).text(after));
  std::vector<DeviceId> devices;
  for (const Row& row : open.rows) devices.push_back(DeviceId::trusted(row.text("device_id")));
  if (devices.empty()) co_return "";
  const auto reports = co_await live_.get_reported(devices);
  for (std::size_t i = 0; i < devices.size(); ++i) {
    device::v1::ReportedState report;
    if (reports[i] && report.ParseFromString(*reports[i]))
      co_await apply(org, devices[i], std::move(report));
  }
  co_return devices.back().text();
}

Task<void> RolloutDriver::tell_turns() {
  const auto untold = co_await db_.query(Scope::system(), sql::kDecisionsUntold);
  for (const Row& turn : untold.rows) {
    if (!bus_.connected()) co_return;
    internal::v1::RolloutState told;
    told.set_org_id(turn.text("org_id"));
    told.set_rollout_id(turn.text("rollout_id"));
    told.set_state(turn.text("state"));
    told.set_reason(turn.text("why"));
    told.set_at_ms(to_unix_ms(turn.time("at")));
    told.set_step(turn.text("step"));
    told.set_stage(static_cast<std::int32_t>(turn.integer("stage")) + 1);
    mqtt::Message message;
    message.topic = "flock/internal/v1/rollout/state";
    message.payload = told.SerializeAsString();
    co_await with_deadline(bus_.publish(std::move(message)), kPublishTime,
                           "telling a turn of a rollout");
    co_await db_.query(Scope::system(), sql::kDecisionTold,
                       Params().text(turn.text("org_id")).integer(turn.integer("id")));
  }
}

}  // namespace flock::services

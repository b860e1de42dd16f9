// SPDX-License-Identifier: Apache-2.0
#include "services/rollout_driver.h"

#include <boost/json/serialize.hpp>
#include <map>
#include <set>

#include "async/deadline.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/log.h"
#include "domain/device_json.h"
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
// Desired states on their way to the broker: so many that its answers are not waited for one by
// one, so few that what is published meanwhile does not wait for them.
constexpr std::size_t kPublishedAtOnce = 64;
constexpr std::int64_t kPublishedInARound = 500;
constexpr int kRereadPages = 10;
constexpr const char* kFirst = "00000000-0000-0000-0000-000000000000";

// $1 to $3: whose reports these are, and of which version.
Params named(const std::vector<const DeviceReport*>& reports) {
  std::vector<std::string> orgs, devices, versions;
  for (const DeviceReport* report : reports) {
    orgs.push_back(report->org.text());
    devices.push_back(report->device.text());
    versions.push_back(std::to_string(report->state.desired_version()));
  }
  return Params().texts(orgs).texts(devices).texts(versions);
}

// $4 to $7 of kRolloutDeviceStates.
Params with_progress(Params params, const std::vector<domain::DeviceProgress>& progress) {
  std::vector<std::string> states, reasons, unhealthy, restarting;
  for (const domain::DeviceProgress& one : progress) {
    states.push_back(one.state);
    reasons.push_back(one.reason);
    std::erase(reasons.back(), '\0');  // which a device may write, and PostgreSQL may not
    unhealthy.push_back(one.unhealthy ? "t" : "f");
    restarting.push_back(one.restarting ? "t" : "f");
  }
  return params.texts(states).texts(reasons).texts(unhealthy).texts(restarting);
}

// Nothing when the device is to run nothing any more.
domain::DeviceProgress progress_of(const crypto::SealingKeys& keys, const DeviceReport& report,
                                   const Row& stored) {
  if (!stored.optional_text("desired")) return {};
  device::v1::DesiredState desired;
  if (!desired.ParseFromString(
          open_desired(keys, report.org.text(), report.device.text(), stored.bytes("desired"))))
    throw Error(Code::kCorrupt, "a stored desired state cannot be read")
        .with("device", report.device.text());
  return domain::progress_of(report.state, desired);
}

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

Task<bool> RolloutDriver::publish_desired() {
  const auto devices =
      co_await db_.query(Scope::system(), sql::kUnpublished, Params().integer(kPublishedInARound));
  std::vector<const Row*> published;
  std::exception_ptr failure;
  try {
    co_await for_each(devices.rows.size(), kPublishedAtOnce, [&](std::size_t i) -> Task<void> {
      if (co_await publish(devices.rows[i])) published.push_back(&devices.rows[i]);
    });
  } catch (...) {
    failure = std::current_exception();  // what was published is noted all the same
  }
  co_await note_published(published);
  if (failure) std::rethrow_exception(failure);
  co_return !published.empty() && std::ssize(devices.rows) == kPublishedInARound;
}

// False when there is no broker, which must not keep the rounds from going on: the next one tries
// again.
Task<bool> RolloutDriver::publish(const Row& device) {
  if (!bus_.connected()) co_return false;
  const std::string org = device.text("org_id"), id = device.text("id");
  mqtt::Message message;
  message.topic = "devices/" + id + "/desired";
  message.retain = true;
  try {
    message.payload = open_desired(keys_, org, id, device.bytes("desired"));
  } catch (const Error& error) {
    if (error.code() != Code::kCorrupt) throw;
    log::error("a desired state cannot be opened; it is not published", error, {{"device", id}});
    co_return false;
  }
  co_await with_deadline(bus_.publish(std::move(message)), kPublishTime,
                         "publishing a desired state");
  co_return true;
}

Task<void> RolloutDriver::note_published(const std::vector<const Row*>& devices) {
  if (devices.empty()) co_return;
  std::vector<std::string> orgs, ids, versions, owners, members, their_versions, rollouts;
  std::set<std::pair<std::string, std::string>> changed;
  for (const Row* device : devices) {
    orgs.push_back(device->text("org_id"));
    ids.push_back(device->text("id"));
    versions.push_back(device->text("desired_version"));
    const auto rollout = device->optional_text("desired_rollout_id");
    if (!rollout) continue;
    owners.push_back(orgs.back());
    members.push_back(ids.back());
    their_versions.push_back(versions.back());
    rollouts.push_back(*rollout);
    changed.emplace(orgs.back(), *rollout);
  }
  co_await db_.query(Scope::system(), sql::kPublished,
                     Params().texts(orgs).texts(ids).texts(versions));
  co_await db_.query(Scope::system(), sql::kRolloutDevicesDelivered,
                     Params().texts(owners).texts(members).texts(their_versions).texts(rollouts));
  for (const auto& [org, rollout] : changed) co_await announce_rollout(bus_, org, rollout);
}

Task<bool> RolloutDriver::apply(std::vector<DeviceReport> reports) {
  std::vector<const DeviceReport*> all;
  for (const DeviceReport& report : reports) all.push_back(&report);
  const auto stored = co_await db_.query(Scope::system(), sql::kRolloutDesired, named(all));
  std::map<std::string, const Row*> wanted;
  for (const Row& row : stored.rows) wanted.emplace(row.text("id"), &row);
  std::vector<const DeviceReport*> behind, present;
  std::vector<domain::DeviceProgress> progress;
  for (const DeviceReport* report : all) {
    const auto found = wanted.find(report->device.text());
    if (found == wanted.end()) {
      behind.push_back(report);
      continue;
    }
    republished_.erase(report->device);
    auto says = progress_of(keys_, *report, *found->second);
    if (says.state.empty()) continue;
    present.push_back(report);
    progress.push_back(std::move(says));
  }
  co_await send_again(behind);
  if (present.empty()) co_return false;
  auto rollouts = co_await note_machines(present);
  const auto changed = co_await db_.query(Scope::system(), sql::kRolloutDeviceStates,
                                          with_progress(named(present), progress));
  for (const Row& row : changed.rows) rollouts.emplace(row.text("org_id"), row.text("rollout_id"));
  for (const auto& [org, rollout] : rollouts) co_await announce_rollout(bus_, org, rollout);
  co_return !rollouts.empty();
}

// The rollouts of those whose host command is at another step than before.
Task<std::set<std::pair<std::string, std::string>>> RolloutDriver::note_machines(
    const std::vector<const DeviceReport*>& reports) {
  std::vector<const DeviceReport*> saying;
  std::vector<std::string> said;
  for (const DeviceReport* report : reports) {
    if (!report->state.has_host_command()) continue;
    saying.push_back(report);
    said.push_back(boost::json::serialize(domain::host_command_json(report->state.host_command())));
  }
  std::set<std::pair<std::string, std::string>> rollouts;
  if (saying.empty()) co_return rollouts;
  const auto changed =
      co_await db_.query(Scope::system(), sql::kRolloutDeviceMachines, named(saying).texts(said));
  for (const Row& row : changed.rows) rollouts.emplace(row.text("org_id"), row.text("rollout_id"));
  co_return rollouts;
}

// They work on an older version: the broker may have lost the retained message.
Task<void> RolloutDriver::send_again(const std::vector<const DeviceReport*>& behind) {
  std::vector<const DeviceReport*> due;
  const SteadyPoint now = std::chrono::steady_clock::now();
  for (const DeviceReport* report : behind) {
    SteadyPoint& last = republished_[report->device];
    if (last != SteadyPoint() && now - last < kRepublishEvery) continue;
    last = now;
    due.push_back(report);
  }
  if (!due.empty()) co_await db_.query(Scope::system(), sql::kRepublish, named(due));
}

Task<void> RolloutDriver::reread_reports() {
  for (int page = 0; page < kRereadPages; ++page) {
    const auto open =
        co_await db_.query(Scope::system(), sql::kRolloutsOpenFrom,
                           Params().text(reread_rollout_.empty() ? kFirst : reread_rollout_));
    if (open.empty()) {
      reread_rollout_.clear();
      co_return;
    }
    const std::string rollout = open.rows.front().text("id");
    if (rollout != reread_rollout_) reread_device_.clear();
    reread_rollout_ = rollout;
    reread_device_ = co_await reread_page(OrgId::trusted(open.rows.front().text("org_id")), rollout,
                                          reread_device_.empty() ? kFirst : reread_device_);
    if (!reread_device_.empty()) continue;
    reread_rollout_ = open.rows.size() > 1 ? open.rows.back().text("id") : "";
    if (reread_rollout_.empty()) co_return;  // all of them: from the beginning next time
  }
}

// The last device of the page, or "" at the end.
Task<std::string> RolloutDriver::reread_page(OrgId org, std::string rollout, std::string after) {
  const auto open = co_await db_.query(Scope::system(), sql::kRolloutUnsettled,
                                       Params().text(org.text()).text(rollout).text(after));
  std::vector<DeviceId> devices;
  for (const Row& row : open.rows) devices.push_back(DeviceId::trusted(row.text("device_id")));
  if (devices.empty()) co_return "";
  const auto stored = co_await live_.get_reported(devices);
  std::vector<DeviceReport> reports;
  for (std::size_t i = 0; i < devices.size(); ++i) {
    device::v1::ReportedState state;
    if (stored[i] && state.ParseFromString(*stored[i]))
      reports.push_back({org, devices[i], std::move(state)});
  }
  if (!reports.empty()) co_await apply(std::move(reports));
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

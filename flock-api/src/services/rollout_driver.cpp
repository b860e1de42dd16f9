// SPDX-License-Identifier: Apache-2.0
#include "services/rollout_driver.h"

#include <optional>

#include "async/deadline.h"
#include "base/error.h"
#include "base/log.h"
#include "domain/desired.h"
#include "domain/rollout.h"
#include "flock/internal/v1/internal.pb.h"
#include "services/sealing.h"
#include "stores/postgres/event_statements.h"
#include "stores/postgres/statements.h"
#include "stores/postgres/variable_statements.h"

namespace flock::services {
namespace {

namespace sql = postgres::sql;
using postgres::Params;
using postgres::Row;
using postgres::Scope;

// How often one device that shows an old version is sent its desired state again.
constexpr Duration kRepublishEvery{10'000};
constexpr Duration kPublishTime{5000};
constexpr int kStalePages = 5;

mqtt::Message internal_message(std::string topic, const std::string& payload) {
  mqtt::Message message;
  message.topic = "flock/internal/v1/" + std::move(topic);
  message.payload = payload;
  return message;
}

// With the secrets open. Throws Error{kCorrupt} that names the one that cannot be.
std::vector<domain::Variable> open_variables(const crypto::SealingKeys& keys,
                                             const std::string& org, const postgres::Rows& rows) {
  std::vector<domain::Variable> out;
  for (const Row& row : rows.rows) {
    domain::Variable variable{domain::parse_level(row.text("level")).value(), row.text("service"),
                              row.text("name"), "", row.boolean("secret")};
    try {
      variable.value = variable.secret ? keys.open(row.text("sealed"), variable_context(org, row))
                                       : row.text("value");
    } catch (const Error& error) {
      if (error.code() != Code::kCorrupt) throw;
      throw Error(Code::kCorrupt, "a secret variable cannot be opened: " + error.message())
          .with("name", variable.name)
          .with("id", row.text("id"));
    }
    out.push_back(std::move(variable));
  }
  return out;
}

// The release stays what it is, and so does all else that was decided for the device. Nothing when
// there is no difference, or when the device must keep what it has.
std::optional<device::v1::DesiredState> made_anew(const crypto::SealingKeys& keys,
                                                  const std::string& org, const Row& row,
                                                  const std::vector<domain::Variable>& variables) {
  const auto workload = workload::from_json(row.text("workload"));
  device::v1::DesiredState desired;
  try {
    if (!row.optional_text("desired")) {  // it was removed, and came back
      desired =
          domain::make_desired(workload, row.text("architecture"), row.text("variant"), variables);
      desired.set_release_id(row.text("desired_release_id"));
      desired.set_release_version(row.text("release_version"));
      desired.set_rollout_id(row.optional_text("desired_rollout_id").value_or(""));
      desired.set_soak_ms(row.optional_integer("soak_ms").value_or(0));
      return desired;
    }
    if (!desired.ParseFromString(open_desired(keys, org, row.text("id"), row.bytes("desired"))))
      throw Error(Code::kCorrupt, "a stored desired state cannot be read");
    if (domain::replace_environment(desired, workload, variables)) return desired;
  } catch (const Error& error) {
    if (error.code() != Code::kUnprocessable) throw;
    log::error("changed variables do not reach a device", error, {{"device", row.text("id")}});
  }
  return std::nullopt;
}

// What cannot be opened must not stand in the way of all that comes after it.
Task<void> unless_corrupt(const char* what, std::string id, Task<void> work) {
  try {
    co_await std::move(work);
  } catch (const Error& error) {
    if (error.code() != Code::kCorrupt) throw;
    log::error("something stored cannot be read; it is tried again", error,
               {{"what", what}, {"id", id}});
  }
}

}  // namespace

Task<void> RolloutDriver::announce(std::string org, std::string rollout) {
  internal::v1::RolloutChanged changed;
  changed.set_org_id(org);
  changed.set_rollout_id(rollout);
  // A hint for those who watch; the work must not wait for it.
  if (!bus_.connected()) co_return;
  try {
    co_await with_deadline(
        bus_.publish(internal_message("rollout/changed", changed.SerializeAsString())),
        kPublishTime, "announcing a rollout");
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    log::debug("a change of a rollout was not announced", error);
  }
}

Task<void> RolloutDriver::execute_deployments() {
  const auto pending = co_await db_.query(Scope::system(), sql::kDeploymentsPending);
  for (const Row& deployment : pending.rows)
    co_await unless_corrupt("a deployment", deployment.text("id"), execute(deployment));
}

Task<void> RolloutDriver::execute(const Row& deployment) {
  const std::string org = deployment.text("org_id"), id = deployment.text("id"),
                    rollout = new_uuid();
  const auto fleet = deployment.optional_text("fleet_id");
  std::size_t count = 0;
  const auto work = [&](postgres::Transaction& tx) -> Task<void> {
    const auto mine =
        co_await tx.query(sql::kDeploymentExecuted, Params().text(org).text(id).text(rollout));
    if (mine.empty()) co_return;  // another leader was here before us
    co_await tx.query(
        sql::kRolloutInsert,
        Params().text(rollout).text(org).text(id).text(deployment.text("release_id")).text(fleet));
    if (fleet) co_await tx.query(sql::kFleetDeployment, Params().text(org).text(*fleet).text(id));
    const auto list = deployment.optional_text("device_ids");
    const std::optional<std::string> ids = list ? std::optional("{" + *list + "}") : std::nullopt;
    const auto devices =
        co_await tx.query(sql::kDeploymentDevices, Params().text(org).text(fleet).text(ids));
    count = devices.rows.size();
    for (const Row& device : devices.rows) co_await want(tx, deployment, device, rollout);
  };
  co_await db_.transaction(Scope::system(), work);
  log::info("rollout started", {{"rollout", rollout}, {"devices", count}});
  co_await announce(org, rollout);
}

// One device's part: its next version, or FAILED at once when the release cannot run on it.
Task<void> RolloutDriver::want(postgres::Transaction& tx, const Row& deployment, const Row& device,
                               const std::string& rollout) {
  const std::string org = deployment.text("org_id"), id = device.text("id"),
                    release = deployment.text("release_id");
  const std::int64_t version = device.integer("desired_version") + 1;
  // A key that is missing is the installation's fault, not the device's: it is waited for.
  const auto variables = open_variables(
      keys_, org, co_await tx.query(sql::kVariablesOfDevice, Params().text(org).text(id)));
  std::string failure;
  device::v1::DesiredState desired;
  try {
    desired = domain::make_desired(workload::from_json(deployment.text("workload")),
                                   device.text("architecture"), device.text("variant"), variables);
  } catch (const Error& error) {
    failure = error.message();
  }
  if (!failure.empty()) {
    co_await tx.query(sql::kRolloutDeviceInsert, Params()
                                                     .text(org)
                                                     .text(rollout)
                                                     .text(id)
                                                     .text(std::string("FAILED"))
                                                     .text(failure)
                                                     .integer(0));
    co_return;
  }
  // Only now: a release that cannot run on the device leaves it, and its rollout, what it had.
  co_await tx.query(sql::kSupersede, Params().text(org).text(id).text(rollout));
  desired.set_version(version);
  desired.set_release_id(release);
  desired.set_release_version(deployment.text("release_version"));
  desired.set_rollout_id(rollout);
  desired.set_soak_ms(deployment.integer("soak_ms"));
  desired.set_created_at_ms(to_unix_ms(system_clock().now()));
  co_await tx.query(sql::kDeviceWant,
                    Params().text(org).text(id).integer(version).text(release).text(rollout).bytes(
                        seal_desired(keys_, org, id, desired)));
  co_await tx.query(sql::kRolloutDeviceInsert, Params()
                                                   .text(org)
                                                   .text(rollout)
                                                   .text(id)
                                                   .text(std::string("PENDING"))
                                                   .text(std::nullopt)
                                                   .integer(version));
}

Task<void> RolloutDriver::adopt_latecomers() {
  const auto devices = co_await db_.query(Scope::system(), sql::kLatecomers);
  for (const Row& device : devices.rows) {
    const std::string org = device.text("org_id");
    const auto found = co_await db_.query(Scope::system(), sql::kDeploymentGet,
                                          Params().text(org).text(device.text("deployment_id")));
    if (found.empty()) continue;
    const Row& deployment = found.rows.front();
    const std::string rollout = deployment.optional_text("rollout_id").value_or("");
    if (rollout.empty()) continue;
    const auto work = [&](postgres::Transaction& tx) -> Task<void> {
      const auto still =
          co_await tx.query(sql::kLatecomerLock, Params().text(org).text(device.text("id")));
      if (const Row* row = still.first()) co_await want(tx, deployment, *row, rollout);
    };
    co_await unless_corrupt("a latecomer", device.text("id"),
                            db_.transaction(Scope::system(), work));
    co_await announce(org, rollout);
  }
}

// Page after page, but not so many that all else waits: the next round goes on behind the last.
Task<void> RolloutDriver::rebuild_stale() {
  constexpr const char* kFirst = "00000000-0000-0000-0000-000000000000";
  for (int page = 0; page < kStalePages; ++page) {
    const auto devices = co_await db_.query(
        Scope::system(), sql::kStaleDevices,
        Params().text(stale_after_.empty() ? std::string(kFirst) : stale_after_));
    stale_after_ = devices.empty() ? "" : devices.rows.back().text("id");
    for (const Row& device : devices.rows)
      co_await unless_corrupt("a changed device", device.text("id"),
                              rebuild(device.text("org_id"), device.text("id")));
    if (stale_after_.empty()) co_return;
  }
}

Task<void> RolloutDriver::rebuild(std::string org, std::string device) {
  std::string rollout;
  const auto work = [&](postgres::Transaction& tx) -> Task<void> {
    rollout.clear();
    const auto locked = co_await tx.query(sql::kStaleLock, Params().text(org).text(device));
    if (locked.empty()) co_return;
    const Row& row = locked.rows.front();
    const auto variables = open_variables(
        keys_, org, co_await tx.query(sql::kVariablesOfDevice, Params().text(org).text(device)));
    auto desired = made_anew(keys_, org, row, variables);
    if (!desired) {
      co_await tx.query(sql::kStaleDone, Params().text(org).text(device));
      co_return;
    }
    const std::int64_t version = row.integer("desired_version") + 1;
    desired->set_version(version);
    desired->set_created_at_ms(to_unix_ms(system_clock().now()));
    co_await tx.query(sql::kStaleRebuilt, Params().text(org).text(device).integer(version).bytes(
                                              seal_desired(keys_, org, device, *desired)));
    const auto followed =
        co_await tx.query(sql::kRolloutFollows, Params()
                                                    .text(org)
                                                    .text(device)
                                                    .text(row.optional_text("desired_rollout_id"))
                                                    .integer(version));
    if (!followed.empty()) rollout = desired->rollout_id();
  };
  co_await db_.transaction(Scope::system(), work);
  if (!rollout.empty()) co_await announce(org, rollout);
}

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
    co_await announce(org, device.optional_text("desired_rollout_id").value_or(""));
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
                                              .text(progress.reason));
  if (changed.empty()) co_return false;
  co_await announce(org.text(), changed.rows.front().text("rollout_id"));
  co_return true;
}

Task<void> RolloutDriver::reread_reports() {
  const auto running = co_await db_.query(Scope::system(), sql::kRolloutsRunning);
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

Task<void> RolloutDriver::judge() {
  const auto running = co_await db_.query(Scope::system(), sql::kRolloutsRunning);
  for (const Row& rollout : running.rows) {
    const std::string org = rollout.text("org_id"), id = rollout.text("id");
    co_await db_.query(Scope::system(), sql::kRolloutRevoked, Params().text(org).text(id));
    co_await db_.query(Scope::system(), sql::kRolloutTimeouts,
                       Params().text(org).text(id).integer(rollout.integer("failure_timeout_ms")));
    const auto counted =
        co_await db_.query(Scope::system(), sql::kRolloutGet, Params().text(org).text(id));
    const Row& row = counted.rows.at(0);
    domain::RolloutCounts counts{row.integer("total"), row.integer("confirmed"),
                                 row.integer("failed"), row.integer("superseded")};
    const domain::Judgement decision = domain::judge(
        counts, rollout.real("max_failed_ratio"), row.optional_text("first_failure").value_or(""));
    if (decision.verdict == domain::Verdict::kContinue) continue;
    const char* state = decision.verdict == domain::Verdict::kComplete ? "COMPLETED"
                        : decision.verdict == domain::Verdict::kFail   ? "FAILED"
                                                                       : "SUPERSEDED";
    co_await db_.query(Scope::system(), sql::kRolloutEnd,
                       Params().text(org).text(id).text(std::string(state)).text(decision.reason));
    log::info("rollout ended", {{"rollout", id}, {"state", state}, {"reason", decision.reason}});
    co_await announce(org, id);
  }
}

Task<void> RolloutDriver::tell_states() {
  const auto untold = co_await db_.query(Scope::system(), sql::kRolloutsUntold);
  for (const Row& rollout : untold.rows) {
    if (!bus_.connected()) co_return;
    const std::string& state = rollout.text("state");
    if (!rollout.optional_text("told_state"))
      co_await tell_state(rollout, "RUNNING", rollout.time("created_at"));
    if (const auto ended = rollout.optional_time("ended_at"))
      co_await tell_state(rollout, state, *ended);
  }
}

Task<void> RolloutDriver::tell_state(const Row& rollout, std::string state, TimePoint at) {
  internal::v1::RolloutState told;
  told.set_org_id(rollout.text("org_id"));
  told.set_rollout_id(rollout.text("id"));
  told.set_state(state);
  if (state != "RUNNING") told.set_reason(rollout.text("reason"));
  told.set_at_ms(to_unix_ms(at));
  co_await with_deadline(bus_.publish(internal_message("rollout/state", told.SerializeAsString())),
                         kPublishTime, "telling the state of a rollout");
  co_await db_.query(Scope::system(), sql::kRolloutTold,
                     Params().text(rollout.text("org_id")).text(rollout.text("id")).text(state));
}

}  // namespace flock::services

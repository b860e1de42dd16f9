// SPDX-License-Identifier: Apache-2.0
#include "services/desired_states.h"

#include <optional>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "domain/desired.h"
#include "services/host_command_json.h"
#include "services/rollout_news.h"
#include "services/sealing.h"
#include "services/unless_corrupt.h"
#include "stores/postgres/rollout_statements.h"
#include "stores/postgres/variable_statements.h"

namespace flock::services {
namespace {

namespace sql = postgres::sql;
using postgres::Params;
using postgres::Row;
using postgres::Scope;

constexpr int kStalePages = 5;

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

}  // namespace

Task<void> DesiredStates::make_begun() {
  const auto devices = co_await term_.query(Scope::system(), sql::kRolloutToMake);
  std::set<std::pair<std::string, std::string>> rollouts;
  for (const Row& row : devices.rows) {
    rollouts.emplace(row.text("org_id"), row.text("rollout_id"));
    co_await unless_corrupt(
        "a device of a rollout", row.text("device_id"),
        begin(row.text("org_id"), row.text("rollout_id"), row.text("device_id")));
  }
  for (const auto& [org, rollout] : rollouts) co_await announce_rollout(bus_, org, rollout);
}

Task<void> DesiredStates::begin(std::string org, std::string rollout, std::string device) {
  const auto work = [&](postgres::Transaction& tx) -> Task<void> {
    const auto locked =
        co_await tx.query(sql::kRolloutMakeLock, Params().text(org).text(rollout).text(device));
    if (locked.empty()) co_return;
    std::string failure;
    try {
      co_await want(tx, locked.rows.front(), org, rollout);
    } catch (const Error& error) {
      if (error.code() != Code::kUnprocessable && error.code() != Code::kNotFound) throw;
      failure = error.message();
    }
    if (!failure.empty()) {
      co_await tx.query(sql::kRolloutDeviceFailed,
                        Params().text(org).text(rollout).text(device).text(failure));
    }
  };
  co_await term_.transaction(Scope::system(), work);
}

// Throws Error{kUnprocessable}, before anything is changed, when the device cannot run it.
Task<void> DesiredStates::want(postgres::Transaction& tx, const Row& row, const std::string& org,
                               const std::string& rollout) {
  const std::string device = row.text("id");
  const bool back = row.text("state") == "ROLLING_BACK";
  const std::optional<std::string> release =
      row.optional_text(back ? "previous_release_id" : "release_id");
  device::v1::DesiredState desired;
  if (release) {
    if (back && row.boolean("back_deleted"))
      throw Error(Code::kNotFound, "the release that it ran before was deleted");
    // A key that is missing is the installation's fault, not the device's: it is waited for.
    const auto variables = open_variables(
        keys_, org, co_await tx.query(sql::kVariablesOfDevice, Params().text(org).text(device)));
    desired =
        domain::make_desired(workload::from_json(row.text(back ? "back_workload" : "workload")),
                             row.text("architecture"), row.text("variant"), variables);
    desired.set_release_id(*release);
    desired.set_release_version(row.text(back ? "back_version" : "release_version"));
  }  // otherwise it has nothing to run, or had nothing and goes back to that
  if (const auto command = row.optional_text("host_command")) {
    *desired.mutable_host_command() = stored_host_command(*command);
    desired.mutable_host_command()->set_id(
        host_command_id(row.text("deployment_id"), row.integer("retries")));
    desired.mutable_host_command()->set_undo(back);
  }
  const std::int64_t version = row.integer("desired_version") + 1;
  // Only now: a release that cannot run on the device leaves it, and its rollout, what it had.
  co_await tx.query(sql::kSupersede, Params().text(org).text(device).text(rollout));
  co_await tx.query(sql::kWantedElsewhere, Params().text(org).text(device).text(rollout));
  desired.set_version(version);
  desired.set_rollout_id(rollout);
  desired.set_soak_ms(row.integer("soak_ms"));
  desired.set_start_timeout_ms(row.integer("failure_timeout_ms"));
  desired.set_attempt(static_cast<std::int32_t>(row.integer("retries")));
  desired.set_created_at_ms(to_unix_ms(system_clock().now()));
  co_await tx.query(sql::kRolloutDeviceMade,
                    Params().text(org).text(rollout).text(device).integer(version));
  co_await tx.query(
      sql::kDeviceWant,
      Params().text(org).text(device).integer(version).text(release).text(rollout).bytes(
          seal_desired(keys_, org, device, desired)));
}

// Page after page, but not so many that all else waits: the next round goes on behind the last.
Task<void> DesiredStates::rebuild_stale() {
  constexpr const char* kFirst = "00000000-0000-0000-0000-000000000000";
  for (int page = 0; page < kStalePages; ++page) {
    const auto devices = co_await term_.query(
        Scope::system(), sql::kStaleDevices,
        Params().text(stale_after_.empty() ? std::string(kFirst) : stale_after_));
    stale_after_ = devices.empty() ? "" : devices.rows.back().text("id");
    for (const Row& device : devices.rows)
      co_await unless_corrupt("a changed device", device.text("id"),
                              rebuild(device.text("org_id"), device.text("id")));
    if (stale_after_.empty()) co_return;
  }
}

Task<void> DesiredStates::rebuild(std::string org, std::string device) {
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
  co_await term_.transaction(Scope::system(), work);
  co_await announce_rollout(bus_, org, rollout);
}

}  // namespace flock::services
